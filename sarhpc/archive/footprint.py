"""Footprints of scenes: outlines on the map and in WGS84, and the share another image covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
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
    if not shapely.LinearRing(ring).is_ccw:
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
    # Relative to a corner: products of large map coordinates would cancel.
    corner = scene[0]
    ground, over = (shapely.MultiPoint(ring - corner).convex_hull for ring in (scene, other))
    return float(ground.intersection(over).area / ground.area)
