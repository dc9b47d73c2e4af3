"""Writer of cloud-optimised GeoTIFF for images that have no place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

CENTIMETRE = 3
"""TIFF's `ResolutionUnit` for pixels per centimetre."""


def placeless_cog(
    image: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32],
    tags: Mapping[str, str],
    spacing_m: float | None = None,
) -> bytes:
    """Bytes of a COG of an image (H, W) without CRS, affine or control points.

    Args:
        image: of one band; NaN of floats is no data, and their overviews take the nearest pixel, as
            a mean of decibels is no level.
        tags: GDAL metadata.
        spacing_m: pixel spacing, m; written as `PIXEL_SPACING_M` and as TIFF resolution (pixels
            per centimetre), which place nothing. None writes neither.
    """
    spacing: dict[str, object] = {}
    if spacing_m is not None:
        per_cm = f"{0.01 / spacing_m:.9g}"
        spacing = {
            "PIXEL_SPACING_M": f"{spacing_m:.9g}",
            "TIFFTAG_XRESOLUTION": per_cm,
            "TIFFTAG_YRESOLUTION": per_cm,
            "TIFFTAG_RESOLUTIONUNIT": CENTIMETRE,
        }
    floats: dict[str, object] = {}
    if image.dtype.kind == "f":
        floats = {"nodata": float("nan"), "predictor": "FLOATING_POINT",
                  "overview_resampling": "NEAREST"}  # fmt: skip
    height, width = image.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile() as memory:
            with memory.open(
                driver="COG", width=width, height=height, count=1, dtype=image.dtype,
                compress="DEFLATE", overviews="AUTO", **floats,
            ) as target:  # fmt: skip
                target.write(image, 1)
                target.update_tags(**tags, **spacing)
            return bytes(memory.read())
