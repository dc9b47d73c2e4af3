"""Configuration of the distances between features (E9)."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpc.errors import ConfigError

AUTO, TRANSFORMERS, TORCHSCRIPT, INCEPTION = "auto", "transformers", "torchscript", "inception"
KINDS = (AUTO, TRANSFORMERS, TORCHSCRIPT, INCEPTION)
CROP, RESIZE = "crop", "resize"
CODES, DB = "codes", "db"


@dataclass
class FeaturesConfig:
    """Which features E9 compares, and how a tile becomes the input of a network."""

    measured: bool = True
    """Compare what is measured of each tile (E1 to E6); it needs no weights."""
    backbone: str | None = None
    """Network whose features are compared as well: a folder of transformers (DINOv2, a CLIP, its
    vision part), a TorchScript file, or `embedded:clip`; null compares none."""
    kind: str = AUTO
    """What the path is: `transformers`, `torchscript`, `inception` (the TorchScript file of the
    original Inception, as StyleGAN2-ADA and clean-fid publish it); `auto` takes a folder for the
    first and a file for the second."""
    width: int | None = None
    """Features that the network must have; null takes what it has."""
    px: int | None = None
    """Side of its input; null takes what the folder names, or all of a tile for TorchScript."""
    fit: str = CROP
    """How a larger tile becomes that: `crop` takes its middle, so that speckle stays as it is;
    `resize` shrinks it with antialiasing, as is usual for photographs, which averages speckle."""
    pixels: str = CODES
    """Values of its input: `codes`, amplitude clipped at full scale as in the 8-bit picture, or
    `db`, the logarithm between the two levels of `db`."""
    db: list[float] = field(default_factory=lambda: [-45.0, 15.0])
    """Levels that become 0 and 1, dB over full scale."""
    channels: int = 3
    """Channels of its input, all alike: 3 or 1."""
    mean: list[float] | None = None
    """Subtracted from each channel of 0 to 1; null takes what the folder names, else nothing."""
    std: list[float] | None = None
    """By which each channel is divided then."""
    batch: int = 32
    """Tiles at a time."""


def check_features(cfg: FeaturesConfig, branch: str = "evaluate.features") -> None:
    """Raise ConfigError unless the settings agree with each other; nothing is opened.

    Raises:
        ConfigError: a word that is not known, a size below 1, or levels in the wrong order.
    """
    words = {"kind": KINDS, "fit": (CROP, RESIZE), "pixels": (CODES, DB)}
    for name, known in words.items():
        if getattr(cfg, name) not in known:
            value = getattr(cfg, name)
            raise ConfigError(f"{branch}.{name}={value}: give one of {', '.join(known)}")
    for name in ("width", "px", "batch"):
        value = getattr(cfg, name)
        if value is not None and value < 1:
            raise ConfigError(f"{branch}.{name}={value}: give at least 1")
    if cfg.channels not in (1, 3):
        raise ConfigError(f"{branch}.channels={cfg.channels}: give 1 or 3")
    if len(cfg.db) != 2 or not cfg.db[0] < cfg.db[1]:
        raise ConfigError(f"{branch}.db={cfg.db}: give the lower and the upper level, [-45,15]")
    if (cfg.mean is None) != (cfg.std is None):
        raise ConfigError(f"{branch}.mean and {branch}.std: give both, or neither")
    for name in ("mean", "std"):
        values = getattr(cfg, name)
        if values is not None and len(values) != cfg.channels:
            raise ConfigError(
                f"{branch}.{name}={values}: give a value for each of {cfg.channels} channels"
            )
    if cfg.std is not None and not min(cfg.std) > 0:
        raise ConfigError(f"{branch}.std={cfg.std}: give values above 0")
