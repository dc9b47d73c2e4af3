"""What is laid beside a tile: optical image, land cover, other bands."""
