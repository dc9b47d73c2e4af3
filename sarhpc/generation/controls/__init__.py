"""ControlNets at generation: drawings as layers, several controls at once, what fits a model."""
