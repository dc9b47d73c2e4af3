"""The label map in the frame of a SAR tile, by nearest pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.windows import Window

from hpc.errors import DataError
from sarhpc.archive.raster_files import crs_text, opened_raster

Affine6 = tuple[float, float, float, float, float, float]


def read_label(
    path: Path, affine: Affine6, crs: str | None, shape: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Codes (H, W) of the label map under a tile, and where they are known (H, W).

    Code 0 and the file's nodata value are unknown, and so is everything outside the map.

    Args:
        path: label raster of one 8-bit band.
        affine: tile pixel corners to metres in `crs`, or to the scene's local frame.
        crs: of the tile; None takes the map to lie in the scene's local frame.
        shape: rows and columns of the tile.

    Raises:
        DataError: the file is missing, corrupt, not 8-bit, or only one of tile and map has a CRS.
    """
    with opened_raster(path) as dataset:
        own = crs_text(dataset)
        if (own is None) != (crs is None) or dataset.dtypes[0] != "uint8":
            raise DataError(
                f"{path} is not a label map of this scene (CRS {own}, {dataset.dtypes[0]}): write "
                "it as uint8 in the scene's CRS, or take the asset out"
            )
        x, y = _centres(affine, shape)
        if own != crs:
            x, y = Transformer.from_crs(crs, own, always_xy=True).transform(x, y)
        inverse: Affine = ~dataset.transform
        rows = np.floor(inverse.d * x + inverse.e * y + inverse.f).astype(np.int64)
        cols = np.floor(inverse.a * x + inverse.b * y + inverse.c).astype(np.int64)
        inside = (rows >= 0) & (rows < dataset.height) & (cols >= 0) & (cols < dataset.width)
        label = np.zeros(shape, np.uint8)
        if inside.any():
            rows, cols = rows[inside], cols[inside]
            first = int(rows.min()), int(cols.min())
            extent = (int(rows.max()) - first[0] + 1, int(cols.max()) - first[1] + 1)
            codes = dataset.read(1, window=Window(first[1], first[0], extent[1], extent[0]))
            label[inside] = codes[rows - first[0], cols - first[1]]
        nodata = dataset.nodata
    known = inside & (label != 0)
    if nodata is not None:
        known &= label != nodata
    label[~known] = 0
    return label, known


def _centres(
    affine: Affine6, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b, c, d, e, f = affine
    row = np.arange(shape[0])[:, None] + 0.5
    col = np.arange(shape[1])[None, :] + 0.5
    return a * col + b * row + c, d * col + e * row + f
