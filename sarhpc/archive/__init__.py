"""Scenes: the STAC catalogue, the readers of SAR products, the procedural archive."""
