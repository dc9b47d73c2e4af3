"""Footprints of tiles: outlines in longitude and latitude."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pyproj
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.tiling.grid import SceneFrame, TileGrid, TileIndex

_DENSIFY = 4
"""Points per tile side: a straight edge of a projected tile is slightly curved in degrees."""

_DECIMALS = 8
"""About a millimetre; rounds off the last bits, in which PROJ builds differ."""


def tile_footprints(
    frame: SceneFrame, grid: TileGrid, tiles: Sequence[TileIndex]
) -> NDArray[np.float64] | None:
    """Closed outlines (N, 17, 2) as longitude, latitude in degrees WGS84; None without a CRS.

    Raises:
        DataError: the scene's CRS is unknown to PROJ, or does not reach where the scene lies.
    """
    if frame.crs is None:
        return None
    corners = np.array([grid.window(tile) for tile in tiles], np.float64)
    origin = corners[:, None, ::-1, 0]
    positions = origin + grid.tile_px * _unit_outline()
    points = frame.to_map(positions)
    lon, lat = to_wgs84(frame.crs).transform(points[..., 0], points[..., 1])
    outline = np.stack([lon, lat], axis=-1).round(_DECIMALS)
    if not np.isfinite(outline).all():
        raise DataError(
            f"the scene lies outside the area of its CRS {frame.crs[:60]!r}; correct its affine"
        )
    return outline


def to_wgs84(crs: str) -> pyproj.Transformer:
    """Transformer from `crs` to longitude, latitude in degrees.

    Raises:
        DataError: PROJ does not know the CRS.
    """
    return crs_transformer(crs, "EPSG:4326")


@functools.lru_cache(maxsize=64)
def crs_transformer(crs: str, other: str) -> pyproj.Transformer:
    """Transformer from `crs` to `other`, longitude or easting first on both sides.

    Raises:
        DataError: PROJ does not know one of them.
    """
    try:
        return pyproj.Transformer.from_crs(crs, other, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise DataError(
            f"unknown CRS {crs[:60]!r} or {other[:60]!r} ({error}); correct it in the scene's "
            "metadata"
        ) from error


def _unit_outline() -> NDArray[np.float64]:
    """Outline of the unit square (17, 2) as (col, row), closed."""
    t = np.arange(_DENSIFY) / _DENSIFY
    zero, one = np.zeros(_DENSIFY), np.ones(_DENSIFY)
    col = np.concatenate([t, one, 1 - t, zero, [0.0]])
    row = np.concatenate([zero, t, one, 1 - t, [0.0]])
    return np.stack([col, row], axis=-1)
