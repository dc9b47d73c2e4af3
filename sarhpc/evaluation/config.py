"""What the evaluation looks at."""

from __future__ import annotations

from dataclasses import dataclass, field

MIN_TILES = 4
"""Tiles below which nothing can be said of a set."""


@dataclass
class EvaluateConfig:
    """Sizes and seeds of the evaluation."""

    real_splits: list[str] = field(default_factory=lambda: ["val", "test"])
    """Splits whose tiles stand for the truth; `train` is taken where they are empty."""
    tiles: int = 400
    """Most tiles of each set that are measured."""
    bootstrap: int = 200
    """Resamplings over tiles behind each 95 % interval."""
    seed: int = 0
    """Seed of the resampling and of the real-versus-real halves."""
    gallery: int = 8
    """Real and synthetic tiles shown side by side in the report."""
