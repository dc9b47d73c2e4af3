"""Position on the Earth of the pixels of a SICD, by its own projection to a height."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sarkit.sicd
import sarkit.wgs84
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from sarhpc.archive.formats.sicd.metadata import SicdMetadata, open_sicd
from sarhpc.archive.geolocation import Geolocation, fit_gcps

_STEPS = 7
_DEGREES = CRS.from_epsg(4326)


def placed_pixels(path: Path, metadata: SicdMetadata) -> Geolocation | None:
    """The position of pixels at the height of the scene centre; None where it cannot be computed.

    SICD Volume 3: the image plane is projected along contours of range and Doppler, with squint and
    twist as they were flown. Terrain displaces what is not at that height.
    """
    rows, cols = metadata.shape
    steps = np.linspace(0, 1, _STEPS)
    corners = np.array([(row * rows, col * cols) for row in steps for col in steps])
    place = corners - 0.5 + np.subtract(metadata.first_pixel, metadata.scp_pixel)
    try:
        with path.open("rb") as file:
            tree = open_sicd(file, path).metadata.xmltree
        height = float(tree.find(".//{*}GeoData/{*}SCP/{*}LLH/{*}HAE").text)
        points, _, done = sarkit.sicd.image_to_constant_hae_surface(
            tree, place * np.array(metadata.slant_spacing_m), height
        )
        degrees = np.asarray(sarkit.wgs84.cartesian_to_geodetic(points), np.float64)
    except Exception:  # metadata that lack what the projection needs end in any of them
        return None
    if not done or not np.isfinite(degrees).all():
        return None
    gcps = [
        GroundControlPoint(row=row, col=col, x=lon, y=lat)
        for (row, col), (lat, lon, _) in zip(corners, degrees, strict=True)
    ]
    return fit_gcps(gcps, _DEGREES, path)
