"""Layers registered to a tile: optical image, land cover, conditions, other radar bands."""
