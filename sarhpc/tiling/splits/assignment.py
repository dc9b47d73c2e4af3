"""Train, validation and test by geography: whole cells of the Earth, with a buffer between.

Cells are fixed to the Earth, not to scenes: ground that is imaged again, or lies in two UTM zones,
always falls into the same cell and so into the same split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hpc.errors import ConfigError
from sarhpc.archive.scene import Scene
from sarhpc.shards.sample import SPLITS
from sarhpc.tiling.config import SplitConfig, TileConfig

SPLIT_BY = ("cell", "line", "cell+line")

METRES_PER_DEGREE = 111_320.0
_CELL_TILES = 10
"""Least number of tiles along a side of a cell of the default size."""
EDGE_DEGREES = 1e-6
"""Margin of boxes, so that what touches an edge counts on both sides of it."""


def split_of(name: str, cfg: SplitConfig) -> str:
    """The split of a named unit (a cell, a scene without CRS), by hash and seed."""
    digest = hashlib.blake2b(f"{cfg.seed}:{name}".encode(), digest_size=8).digest()
    draw = int.from_bytes(digest, "big") / 2**64
    cumulative = np.cumsum(cfg.fractions)
    return SPLITS[min(int(np.searchsorted(cumulative, draw, side="right")), _last(cfg))]


def _last(cfg: SplitConfig) -> int:
    """Index of the last split with a share, which takes what rounding leaves over."""
    return max(index for index, share in enumerate(cfg.fractions) if share > 0)


def check_split(cfg: SplitConfig) -> None:
    """Raise ConfigError unless the shares of the splits sum to 1 and cells have a size.

    Raises:
        ConfigError: one of the settings is invalid.
    """
    shares = cfg.fractions
    if len(shares) != len(SPLITS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(
            f"tile.split.fractions={shares}: must be three shares (train, val, test) that sum to 1"
        )
    if cfg.by not in SPLIT_BY:
        raise ConfigError(f"tile.split.by={cfg.by!r}: must be one of {', '.join(SPLIT_BY)}")
    if not cfg.cell_m > 0:
        raise ConfigError(f"tile.split.cell_m={cfg.cell_m}: must be a positive length in metres")


def split_buffer_m(cfg: TileConfig, pixel_m: float) -> float:
    """Distance that tiles keep from cells of other splits, metres."""
    if cfg.split.buffer_m is not None:
        return cfg.split.buffer_m
    return cfg.tile_px * pixel_m / math.sqrt(2)


def line_buffer_m(cfg: TileConfig) -> float:
    """Distance within which scenes of different flight lines go to one split, metres.

    Raises:
        ConfigError: it follows from a spacing that is only known scene by scene.
    """
    if cfg.split.buffer_m is None and cfg.pixel_m is None:
        raise ConfigError(
            "tile.split.by=line with tile.pixel_m=null leaves the distance between scenes "
            "undefined; set tile.split.buffer_m, in metres"
        )
    return split_buffer_m(cfg, cfg.pixel_m or 0.0)


def stated_spacing(scene: Scene) -> float:
    """The larger ground spacing of a scene by its item, metres; 0 where it states none."""
    names = ("sar:pixel_spacing_range", "sar:pixel_spacing_azimuth")
    stated = (scene.properties.get(name) for name in names)
    return max((float(v) for v in stated if isinstance(v, int | float)), default=0.0)


def with_cells_for(cfg: TileConfig, spacings_m: Iterable[float]) -> TileConfig:
    """The configuration with cells of the Earth that are large beside its tiles.

    Of a cell of the size of a tile nothing is left within its buffer. One size holds for all
    scenes, since cells are fixed to the Earth.

    Args:
        cfg: the configuration of tiling.
        spacings_m: ground spacing of the scenes that keep their own (`pixel_m=null`).
    """
    if cfg.split.cell_m != SplitConfig.cell_m:
        return cfg
    pixel_m = cfg.pixel_m or max(spacings_m, default=0.0)
    cell_m = max(cfg.split.cell_m, float(f"{_CELL_TILES * cfg.tile_px * pixel_m:.3g}"))
    return replace(cfg, split=replace(cfg.split, cell_m=cell_m))


def cells_near(outline: NDArray[np.float64], buffer_m: float, cell_m: float) -> Iterator[str]:
    """Names of the cells that the buffered bounding box of an outline touches.

    A row of cells is a band of latitude, divided into a whole number of columns of nearly
    `cell_m`, so that cells close around the Earth and a box over the antimeridian wraps.
    """
    lon = np.unwrap(outline[:, 0], period=360.0)
    south, north = outline[:, 1].min(), outline[:, 1].max()
    pad = buffer_m / METRES_PER_DEGREE + EDGE_DEGREES
    height = cell_m / METRES_PER_DEGREE
    for row in range(math.floor((south - pad) / height), math.floor((north + pad) / height) + 1):
        shrink, columns, width = band_of_cells(row, cell_m)
        first = math.floor((lon.min() + 180 - pad / shrink) / width)
        last = math.floor((lon.max() + 180 + pad / shrink) / width)
        for col in range(first, last + 1):
            yield f"{row}:{col % columns}"


def band_of_cells(row: int, cell_m: float) -> tuple[float, int, float]:
    """Of a row of cells: cosine of its latitude, number of columns, their width in degrees."""
    height = cell_m / METRES_PER_DEGREE
    shrink = max(math.cos(math.radians((row + 0.5) * height)), 1e-3)
    columns = max(round(360 * shrink / height), 1)
    return shrink, columns, 360 / columns
