"""Configuration of E12: what a small network learns from real, synthetic and mixed images."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpc.errors import ConfigError

CLASSIFICATION, SEGMENTATION = "classification", "segmentation"
TASKS = (CLASSIFICATION, SEGMENTATION)
LEAST_SIZE_PX = 32
LEAST_IMAGES = 8
"""Fewest labelled images of a set from which anything can be learned."""


@dataclass
class UseConfig:
    """E12: networks trained on real, synthetic and mixed images, tested on real ones."""

    task: str | None = None
    """`classification`, `segmentation` (of sets with `landcover.npy`), or null to leave it out."""
    classes: list[str] = field(default_factory=list)
    """Classes to distinguish; a word of the captions where images name no class. Empty: those
    that images name, or their folders."""
    shares: list[float] = field(default_factory=lambda: [0.01, 0.05, 0.1, 1.0])
    """Shares of the labels of the real training images, each alone and mixed with synthetic."""
    seeds: int = 3
    """Networks of each setting and share, each of other weights and other labels."""
    steps: int = 1500
    """Training steps of each network; 32 images each, whatever the number of labels."""
    size: int = 64
    """Largest side of an image that a network gets, pixels; larger ones are averaged down."""
    tiles: int = 3000
    """Most labelled images of each part: real to train on, real to test on, synthetic."""
    test_share: float = 0.3
    """Share of the real scenes that is held out where the images name no split."""


def check_use(cfg: UseConfig) -> None:
    """Raise ConfigError unless networks can be trained as configured.

    Raises:
        ConfigError: an unknown task, or a number that means nothing.
    """
    if cfg.task not in (None, *TASKS):
        raise ConfigError(f"evaluate.use.task={cfg.task}: give {' or '.join(TASKS)}, or null")
    if not cfg.shares or not all(0 < share <= 1 for share in cfg.shares):
        raise ConfigError(
            f"evaluate.use.shares={cfg.shares}: give shares of the real labels such as [0.01,0.1,1]"
        )
    if len({*cfg.shares}) != len(cfg.shares) or len({*cfg.classes}) != len(cfg.classes):
        raise ConfigError("evaluate.use.shares and classes: give each only once")
    if len(cfg.classes) == 1:
        raise ConfigError(f"evaluate.use.classes={cfg.classes}: give two or more to distinguish")
    if not 0 < cfg.test_share < 1:
        raise ConfigError(
            f"evaluate.use.test_share={cfg.test_share}: give more than 0, less than 1"
        )
    least = {"seeds": 1, "steps": 2, "size": LEAST_SIZE_PX, "tiles": LEAST_IMAGES}
    for name, low in least.items():
        if getattr(cfg, name) < low:
            raise ConfigError(f"evaluate.use.{name}={getattr(cfg, name)}: give at least {low}")
