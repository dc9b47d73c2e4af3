"""True spacing of pixels on map grids whose units are no metres on the ground.

A map projection stretches: Web Mercator (EPSG:3857) by 1 / cos(latitude), which is 1.9 at 58
degrees, and in degrees the length of a pixel depends on the latitude. Spacing is therefore measured
along geodesics on the ellipsoid. The grids made for surveying (UTM and national ones) stretch by
less than 0.5 %, and keep their nominal spacing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.control import GroundControlPoint

from hpc.errors import DataError
from sarhpc.archive.geolocation import Geolocation, fit_gcps
from sarhpc.archive.scene import Affine6

NOMINAL = 0.005
"""Relative deviation of the true spacing from the nominal one that is taken for none."""
_MOST_CHANGE = 1.02
"""Ratio between the spacings at two corners of a scene beyond which no single one describes it."""
_GRID_STEPS = 7
_SMALLEST_M, _FARTHEST_M = 1e-4, 1e9

Array = NDArray[np.float64]


def true_spacing(
    affine: Affine6, shape: tuple[int, int], crs: str, path: Path
) -> tuple[float, float]:
    """Ground spacing (row, col) of pixels at the centre of a map-projected image, metres.

    Raises:
        DataError: the projection stretches too differently over the scene, or does not reach it.
    """
    a, b, c, d, e, f = affine
    nominal = float(np.hypot(b, e)), float(np.hypot(a, d))
    if not (min(nominal) > _SMALLEST_M and max(*nominal, abs(c), abs(f)) < _FARTHEST_M):
        # No grid of any image: the check of the header says so.
        return nominal
    height, width = shape
    places = [(width / 2, height / 2), (0.0, 0.0), (width, 0.0), (0.0, height), (width, height)]
    try:
        steps = _steps(affine, np.array(places), crs)
    except ProjError as error:
        raise DataError(f"{path}: its CRS {crs[:60]} cannot be used ({error})") from error
    if not np.isfinite(steps).all():
        raise DataError(f"{path} lies where its CRS {crs[:60]} does not reach; correct it")
    if (np.abs(steps / nominal - 1) <= NOMINAL).all():
        return nominal
    if (steps.max(axis=0) / steps.min(axis=0) > _MOST_CHANGE).any():
        low, high = steps.min(axis=0), steps.max(axis=0)
        raise DataError(
            f"{path}: in {crs[:60]} its pixels measure from {low[0]:.3f} x {low[1]:.3f} to "
            f"{high[0]:.3f} x {high[1]:.3f} m on the ground; reproject it to UTM (gdalwarp -t_srs "
            "EPSG:326NN), or split it"
        )
    return float(steps[0, 0]), float(steps[0, 1])


def _steps(affine: Affine6, places: Array, crs: str) -> Array:
    """Geodesic lengths (n, 2) as (row, col) of pixels around positions (n, 2) as (col, row)."""
    a, b, c, d, e, f = affine
    offsets = places[:, None] + np.array([(0, -0.5), (-0.5, 0), (0, 0.5), (0.5, 0)])
    x, y = offsets @ (a, b) + c, offsets @ (d, e) + f
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    first, second = (lon[:, :2], lat[:, :2]), (lon[:, 2:], lat[:, 2:])
    _, _, lengths = Geod(ellps="WGS84").inv(*(v.copy() for v in (*first, *second)))
    return np.asarray(lengths, np.float64)


def placed_degrees(
    affine: Sequence[float], shape: tuple[int, int], crs: Any, path: Path
) -> Geolocation:
    """Position in metres (UTM, or polar stereographic) of the pixels of a grid in degrees.

    Raises:
        DataError: the grid is not on the Earth.
    """
    a, b, c, d, e, f = affine[:6]
    height, width = shape
    steps = np.linspace(0, 1, _GRID_STEPS)
    positions = [(col * width, row * height) for row in steps for col in steps]
    points = [
        GroundControlPoint(row=row, col=col, x=a * col + b * row + c, y=d * col + e * row + f)
        for col, row in positions
    ]
    return fit_gcps(points, crs, path)
