"""The module name that submitted scripts call."""
