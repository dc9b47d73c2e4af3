"""Metadata cubes of a NISAR product: angles and positions on coarse grids at several heights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pyproj import CRS
from rasterio.control import GroundControlPoint

from sarhpc.archive.formats.lookup_table import LookupTable
from sarhpc.archive.formats.nisar.hdf5 import Array, number, values, vector
from sarhpc.archive.geolocation import Geolocation, fit_gcps

_MOST_POINTS = 15
"""Most control points along each side of an image for fitting its position."""


def terrain_height(file: h5py.File, root: str) -> float:
    """Median of the reference heights of the terrain, metres above the ellipsoid; 0 if absent."""
    parameters = file.get(f"{root}/metadata/processingInformation/parameters", {})
    if "referenceTerrainHeight" not in parameters:
        return 0.0
    heights = np.asarray(values(parameters["referenceTerrainHeight"]), np.float64)
    heights = heights[np.isfinite(heights)]
    return float(np.median(heights)) if heights.size else 0.0


def _level(cube: Any, name: str, height: float) -> Array:
    """The plane (Y, X) of a cube (Z, Y, X) at `height`, linear between its levels."""
    heights = vector(cube, "heightAboveEllipsoid")
    place = float(np.interp(height, heights, np.arange(len(heights))))
    low = min(int(place), max(len(heights) - 2, 0))
    share = place - low
    plane = np.asarray(cube[name][low], np.float64)
    if share > 0:
        plane = plane * (1 - share) + np.asarray(cube[name][low + 1], np.float64) * share
    return plane


def surface(cube: Any, name: str, height: float, rows: Array, cols: Array) -> LookupTable:
    """Values of a cube at `height` over pixel positions (rows, cols) of its nodes.

    Raises:
        ValueError: the cube does not match its coordinates.
    """
    plane = _level(cube, name, height)
    if plane.shape != (len(rows), len(cols)):
        raise ValueError(f"{name} does not match its coordinates")
    return LookupTable(rows, (cols,) * len(rows), tuple(plane))


def placement_of(
    cube: Any, height: float, rows: Array, cols: Array, shape: tuple[int, int], path: Path
) -> Geolocation:
    """Position of pixels, fitted to some of the nodes in and around an image of `shape`.

    Raises:
        DataError: the nodes determine no surface.
    """
    x, y = _level(cube, "coordinateX", height), _level(cube, "coordinateY", height)
    points = [
        GroundControlPoint(row=rows[i], col=cols[j], x=x[i, j], y=y[i, j])
        for i in _spread(rows, shape[0])
        for j in _spread(cols, shape[1])
        if np.isfinite([x[i, j], y[i, j]]).all()
    ]
    return fit_gcps(points, CRS.from_epsg(int(number(cube, "epsg"))), path)


def _spread(nodes: Array, size: int) -> list[int]:
    """Up to 15 evenly spaced nodes inside an axis of `size` pixels and one beyond each end."""
    first = max(int(np.searchsorted(nodes, 0, "right")) - 1, 0)
    last = min(int(np.searchsorted(nodes, size)), len(nodes) - 1)
    count = min(last - first + 1, _MOST_POINTS)
    return sorted({round(float(n)) for n in np.linspace(first, last, count)})
