"""Footprints of scenes: outlines on the map and in WGS84, and the share another image covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from sarhpc.archive.scene import Affine6, PixelPlacement
from sarhpc.archive.stac_item import BoundingBox

_EDGE_POINTS = 8
"""Points per edge of a WGS84 outline: straight edges of a projection are curved there."""


def outline(
    affine: Affine6,
    shape: tuple[int, int],
    points: int = 1,
    placement: PixelPlacement | None = None,
) -> NDArray[np.float64]:
    """Map coordinates (4 * points, 2) along the outer pixel edges, from the first corner on.

    A `placement` replaces the affine.
    """
    height, width = shape
    corners = np.array([(0, 0), (0, width), (height, width), (height, 0)], float)
    steps = np.arange(points)[:, None] / points
    edges = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    pixels = np.concatenate([start + steps * (end - start) for start, end in edges])
    if placement is not None:
        return placement.to_map(pixels[:, ::-1])
    row, col = pixels.T
    a, b, c, d, e, f = affine
    return np.stack([a * col + b * row + c, d * col + e * row + f], axis=1)


def wgs84_outline(
    affine: Affine6, shape: tuple[int, int], crs: str, placement: PixelPlacement | None = None
) -> NDArray[np.float64]:
    """Longitude and latitude (n, 2) along the outline of an image, in degrees."""
    transformer = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    x, y = outline(affine, shape, _EDGE_POINTS, placement).T
    return np.stack(transformer.transform(x, y), axis=1)


def geojson_polygon(lonlat: Sequence[Sequence[float]] | NDArray[np.float64]) -> dict[str, Any]:
    """A GeoJSON polygon, counter-clockwise and closed (RFC 7946), to a millionth of a degree."""
    ring = [[round(float(lon), 6), round(float(lat), 6)] for lon, lat in lonlat]
    if _signed_area(np.asarray(ring)) < 0:
        ring.reverse()
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def geojson_bbox(polygon: dict[str, Any]) -> BoundingBox:
    """West, south, east, north of a polygon; west > east where it crosses the antimeridian."""
    lon, lat = np.asarray(polygon["coordinates"][0]).T
    west, east = float(lon.min()), float(lon.max())
    if east - west > 180:
        west, east = float(lon[lon > 0].min()), float(lon[lon < 0].max())
    return west, float(lat.min()), east, float(lat.max())


def covered_share(scene: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Share of the convex polygon `scene` (n, 2) that the convex polygon `other` covers, 0 to 1."""
    clipped = [tuple(point) for point in scene]
    ring = other if _signed_area(other) > 0 else other[::-1]
    for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        clipped = _clip(clipped, start, end)
        if len(clipped) < 3:
            return 0.0
    return abs(_signed_area(np.asarray(clipped)) / _signed_area(scene))


def _clip(
    polygon: list[tuple[float, ...]], start: NDArray[np.float64], end: NDArray[np.float64]
) -> list[tuple[float, ...]]:
    """The part of `polygon` left of the line from `start` to `end` (Sutherland, Hodgman 1974)."""
    side = [
        (end[0] - start[0]) * (y - start[1]) - (end[1] - start[1]) * (x - start[0])
        for x, y in polygon
    ]
    kept: list[tuple[float, ...]] = []
    for i, point in enumerate(polygon):
        before, s0, s1 = polygon[i - 1], side[i - 1], side[i]
        if (s0 >= 0) != (s1 >= 0):
            t = s0 / (s0 - s1)
            kept.append(tuple(p + t * (q - p) for p, q in zip(before, point, strict=True)))
        if s1 >= 0:
            kept.append(point)
    return kept


def _signed_area(ring: NDArray[np.float64]) -> float:
    # Relative to the first point: products of large map coordinates would cancel.
    x, y = (ring - ring[0]).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)
