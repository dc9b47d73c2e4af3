"""Ancillary rasters of a scene in the frame of a tile: optical images, label maps, terrain."""
