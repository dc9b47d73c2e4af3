"""Checks of the tiling configuration."""

from __future__ import annotations

from typing import get_args

from hpc.errors import ConfigError
from sarhpc.archive.scene import RangeDirection
from sarhpc.shards.radiometry import MASTERS, MODES
from sarhpc.shards.sample import SPLITS
from sarhpc.tiling.config import ImportConfig, TileConfig
from sarhpc.tiling.pairs.conditions import CONDITIONS, CROSS_BAND
from sarhpc.tiling.plane import PLANES
from sarhpc.tiling.splits.assignment import check_split


def check_config(cfg: TileConfig) -> None:
    """Raise ConfigError unless the configuration is valid.

    Raises:
        ConfigError: an unknown name, a size out of range, or shares that do not sum to 1.
    """
    check_split(cfg.split)
    _check_cross_band(cfg)
    _check_radiometry(cfg)
    for name in cfg.conditions:
        if name not in CONDITIONS:
            raise ConfigError(f"tile.conditions {name!r}: must be one of {', '.join(CONDITIONS)}")
    for name in ("tile_px", "shard_samples", "block_tiles", "coarse_factor"):
        if getattr(cfg, name) < 1:
            raise ConfigError(f"tile.{name} {getattr(cfg, name)}: must be >= 1")
    if cfg.stride_px is not None and cfg.stride_px < 1:
        raise ConfigError(f"tile.stride_px {cfg.stride_px}: must be >= 1, or null")
    if cfg.pixel_m is not None and not cfg.pixel_m > 0:
        raise ConfigError(
            f"tile.pixel_m {cfg.pixel_m}: must be a positive spacing in metres, or null"
        )
    if cfg.plane not in PLANES:
        raise ConfigError(f"tile.plane {cfg.plane!r}: must be one of {', '.join(PLANES)}")
    if not 0 < cfg.transition <= 1:
        raise ConfigError(f"tile.transition {cfg.transition}: must be in (0, 1]")


def check_import(cfg: ImportConfig) -> None:
    """Raise ConfigError unless the settings of an import are valid.

    Raises:
        ConfigError: shares that do not sum to 1, an unknown `colour`, or a shard size out of range.
    """
    if len(cfg.fractions) != len(SPLITS) or abs(sum(cfg.fractions) - 1) > 1e-6:
        raise ConfigError(f"imported.fractions={cfg.fractions}: must be three shares that sum to 1")
    if not 0 <= cfg.val_of_train < 1:
        raise ConfigError(f"imported.val_of_train={cfg.val_of_train}: give at least 0, less than 1")
    if cfg.colour not in ("reject", "luma"):
        raise ConfigError(f"imported.colour={cfg.colour!r}: must be reject or luma")
    if cfg.plane not in (None, "ground", "slant"):
        raise ConfigError(f"imported.plane={cfg.plane!r}: must be ground, slant or null")
    choices: dict[str, tuple[str | None, ...]] = {
        "cut": ("centre", "grid"),
        "quantity": (None, "amplitude", "intensity", "db"),
        "level_scope": ("image", "set"),
        "range_direction": (None, *get_args(RangeDirection)),
    }
    for name, values in choices.items():
        if getattr(cfg, name) not in values:
            known = ", ".join("null" if value is None else value for value in values)
            raise ConfigError(f"imported.{name}={getattr(cfg, name)!r}: must be one of {known}")
    if cfg.classes is not None and not all(cfg.classes.values()):
        empty = [name for name, words in cfg.classes.items() if not words]
        raise ConfigError(f"imported.classes: give words for {', '.join(empty) or 'each folder'}")
    if cfg.cut == "grid" and cfg.px is None:
        raise ConfigError("imported.cut=grid does not say of what size; set imported.px")
    if not 1 <= cfg.shard_samples <= 100_000:
        raise ConfigError(
            f"imported.shard_samples={cfg.shard_samples}: must be between 1 and 100000"
        )


def _check_radiometry(cfg: TileConfig) -> None:
    if cfg.normalisation not in MODES:
        raise ConfigError(
            f"tile.normalisation {cfg.normalisation!r}: must be one of {', '.join(MODES)}"
        )
    if cfg.master not in MASTERS:
        raise ConfigError(f"tile.master {cfg.master!r}: must be one of {', '.join(MASTERS)}")
    if cfg.db_scope not in ("scene", "archive"):
        raise ConfigError(f"tile.db_scope {cfg.db_scope!r}: must be scene or archive")
    if cfg.db_scope == "archive" and cfg.normalisation != "db":
        raise ConfigError(
            f"tile.db_scope=archive chooses a window of tile.normalisation=db, and it is "
            f"{cfg.normalisation}: set tile.normalisation=db, or tile.db_scope=scene"
        )
    if not cfg.log1p_gain > 0:
        raise ConfigError(f"tile.log1p_gain {cfg.log1p_gain}: must be positive")
    for name in ("db_window", "log_range", "log1p_range"):
        ends = getattr(cfg, name)
        if ends is not None and not (len(ends) == 2 and ends[0] < ends[1]):
            raise ConfigError(f"tile.{name} {list(ends)}: must be [lower, upper]")
    if cfg.log1p_range[0] < 0:
        raise ConfigError(f"tile.log1p_range {cfg.log1p_range}: must be >= 0")


def _check_cross_band(cfg: TileConfig) -> None:
    """Raise ConfigError unless a requested cross-band layer has a band or polarisation.

    Raises:
        ConfigError: neither is set, or `min_coverage` is out of range.
    """
    if CROSS_BAND not in cfg.conditions:
        return
    if cfg.other is None or (cfg.other.band is None and cfg.other.polarization is None):
        raise ConfigError(
            "tile.conditions=[other] does not say which radar image to show; set tile.other.band "
            "or tile.other.polarization"
        )
    if not 0 < cfg.other.min_coverage <= 1:
        raise ConfigError(f"tile.other.min_coverage {cfg.other.min_coverage}: must be in (0, 1]")
