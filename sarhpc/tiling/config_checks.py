"""Which configurations of tiling can be carried out."""

from __future__ import annotations

from hpc.errors import ConfigError
from sarhpc.shards.sample import SPLITS
from sarhpc.tiling.config import ImportConfig, TileConfig
from sarhpc.tiling.pairs.conditions import CONDITIONS, CROSS_BAND
from sarhpc.tiling.radiometry import MASTERS, MODES
from sarhpc.tiling.splits.assignment import check_split


def check_config(cfg: TileConfig) -> None:
    """Accept a configuration that can be carried out.

    Raises:
        ConfigError: it names an unknown normalisation, an empty tile, or shares that do not add up.
    """
    check_split(cfg.split)
    _check_cross_band(cfg)
    _check_radiometry(cfg)
    for name in cfg.conditions:
        if name not in CONDITIONS:
            raise ConfigError(f"tile.conditions {name!r}: one of {', '.join(CONDITIONS)}")
    for name in ("tile_px", "shard_samples", "block_tiles", "coarse_factor"):
        if getattr(cfg, name) < 1:
            raise ConfigError(f"tile.{name} {getattr(cfg, name)}: give at least 1")
    if cfg.stride_px is not None and cfg.stride_px < 1:
        raise ConfigError(f"tile.stride_px {cfg.stride_px}: give at least 1, or null")
    if cfg.pixel_m is not None and not cfg.pixel_m > 0:
        raise ConfigError(f"tile.pixel_m {cfg.pixel_m}: give a spacing in metres, or null")
    if not 0 < cfg.transition <= 1:
        raise ConfigError(f"tile.transition {cfg.transition}: give a share in (0, 1]")


def check_import(cfg: ImportConfig) -> None:
    """Accept the settings of an import that can be carried out.

    Raises:
        ConfigError: shares that do not add up, or an unknown way with colours or size of shards.
    """
    if len(cfg.fractions) != len(SPLITS) or abs(sum(cfg.fractions) - 1) > 1e-6:
        raise ConfigError(f"imported.fractions={cfg.fractions}: three shares that sum to 1")
    if cfg.colour not in ("reject", "luma"):
        raise ConfigError(f"imported.colour={cfg.colour!r}: take reject or luma")
    if not 1 <= cfg.shard_samples <= 100_000:
        raise ConfigError(f"imported.shard_samples={cfg.shard_samples}: 1 to 100000")


def _check_radiometry(cfg: TileConfig) -> None:
    if cfg.normalisation not in MODES:
        raise ConfigError(f"tile.normalisation {cfg.normalisation!r}: one of {', '.join(MODES)}")
    if cfg.master not in MASTERS:
        raise ConfigError(f"tile.master {cfg.master!r}: one of {', '.join(MASTERS)}")
    if not cfg.log1p_gain > 0:
        raise ConfigError(f"tile.log1p_gain {cfg.log1p_gain}: give a positive factor")
    for name in ("db_window", "log_range", "log1p_range"):
        ends = getattr(cfg, name)
        if ends is not None and not (len(ends) == 2 and ends[0] < ends[1]):
            raise ConfigError(f"tile.{name} {list(ends)}: give the lower and the upper end")
    if cfg.log1p_range[0] < 0:
        raise ConfigError(f"tile.log1p_range {cfg.log1p_range}: no sigma0 lies below 0")


def _check_cross_band(cfg: TileConfig) -> None:
    """Accept a configuration that tells which partners are meant, where they are asked for.

    Raises:
        ConfigError: the layer is asked for without a band or polarisation, or a limit is none.
    """
    if CROSS_BAND not in cfg.conditions:
        return
    if cfg.other is None or (cfg.other.band is None and cfg.other.polarization is None):
        raise ConfigError(
            "tile.conditions=[other] wants to know which image is meant; set tile.other.band or "
            "tile.other.polarization"
        )
    if not 0 < cfg.other.min_coverage <= 1:
        raise ConfigError(f"tile.other.min_coverage {cfg.other.min_coverage}: a share in (0, 1]")
