"""File formats of SAR products, one module or a few for each."""
