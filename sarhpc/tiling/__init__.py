"""Tiles: grid, resampling, radiometry, quality and split."""
