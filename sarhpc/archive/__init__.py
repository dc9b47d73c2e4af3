"""Scenes: the STAC catalogue, readers of SAR products, the procedural archive."""
