"""How work survives: stop requests, checkpoints."""
