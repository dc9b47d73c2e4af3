"""Tiling: from scenes to resampled, quality-checked tiles in geographic splits."""
