"""Configuration of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpc.errors import ConfigError
from sarhpc.shards.sample import SPLITS

MIN_TILES = 4
"""Fewest tiles of a set that can be evaluated."""


@dataclass
class EvaluateConfig:
    """Sizes and seeds of the evaluation."""

    real_splits: list[str] = field(default_factory=lambda: ["val", "test"])
    """Splits whose tiles are the reference; `train` is taken where they are empty."""
    tiles: int = 400
    """Most tiles of each set that are measured."""
    bootstrap: int = 200
    """Resamplings over tiles behind each 95 % interval."""
    seed: int = 0
    """Seed of the resampling and of the draws of real tiles against real tiles."""
    gallery: int = 8
    """Real and synthetic tiles shown side by side in the report."""


def check_config(cfg: EvaluateConfig) -> None:
    """Raise ConfigError unless the evaluation can be carried out.

    Raises:
        ConfigError: too few tiles or resamplings to say anything, or an unknown split.
    """
    least = {"tiles": MIN_TILES, "bootstrap": 2, "gallery": 0}
    for name, low in least.items():
        if getattr(cfg, name) < low:
            raise ConfigError(f"evaluate.{name}={getattr(cfg, name)}: give at least {low}")
    for split in cfg.real_splits:
        if split not in SPLITS:
            raise ConfigError(f"evaluate.real_splits: {split!r} is none of {', '.join(SPLITS)}")
