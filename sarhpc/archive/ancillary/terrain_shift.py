"""Terrain under a tile, and the displacement in range that it causes in a radar image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject

from hpc.errors import DataError
from sarhpc.archive.raster_files import crs_text, opened_raster
from sarhpc.archive.scene import Affine6


def read_height(
    path: Path, affine: Affine6, crs: str, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Terrain heights (H, W) in m at the pixels of a tile, bilinear; NaN where there are none.

    Args:
        path: height raster of one band, m, in any CRS.
        affine: tile pixel corners to metres in `crs`.
        crs: of the tile.
        shape: rows and columns of the tile.

    Raises:
        DataError: the file is missing, corrupt, or has no CRS.
    """
    height = np.full(shape, np.nan)
    with opened_raster(path) as dataset:
        if crs_text(dataset) is None:
            raise DataError(f"{path} has no CRS; write the height model with one")
        reproject(
            rasterio.band(dataset, 1),
            height,
            dst_transform=Affine(*affine),
            dst_crs=crs,
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
        )
    return height


def ground_shift(
    height: NDArray[np.float64], reference_m: float, incidence_deg: float, pixel_m: float
) -> NDArray[np.float64]:
    """Columns (H, W) by which the ground imaged at a pixel lies farther in range than the pixel.

    A radar locates by distance: ground at height h appears (h - reference) cot(theta)
    nearer to the sensor than it lies, on an image projected to the reference height under plane
    wave fronts: the layover of the procedural archive. Range grows with columns. In layover
    several points share a pixel, and one of them is taken.

    Args:
        height: terrain under the tile (H, W), m.
        reference_m: height to which the image was projected, m.
        incidence_deg: incidence angle, degrees.
        pixel_m: size of a column on the ground, m.
    """
    columns = np.arange(height.shape[1], dtype=np.float64)
    nearer = (height - reference_m) / math.tan(math.radians(incidence_deg)) / pixel_m
    # Ground at column x appears at x - nearer(x); made monotonic, so that it can be inverted.
    appears = np.maximum.accumulate(columns - nearer, axis=1)
    steps = 1e-9 * columns
    lies = [np.interp(columns, row + steps, columns) for row in appears]
    # Ground beyond the tile's edge is assumed to have the height of the edge.
    first, last = appears[:, :1], appears[:, -1:]
    found = np.stack(lies)
    found = np.where(columns < first, columns + nearer[:, :1], found)
    found = np.where(columns > last, columns + nearer[:, -1:], found)
    shift: NDArray[np.float64] = found - columns
    return shift
