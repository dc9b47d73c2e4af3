"""Small raster files, written for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from sarhpc.archive.scene import Scene

UTM = "EPSG:32631"


def write_tif(path: Path, bands: np.ndarray, affine: Affine | None = None, **profile: Any) -> Path:
    """A GeoTIFF of `bands` (H, W) or (B, H, W) in UTM 31N, one-metre pixels by default."""
    bands = bands if bands.ndim == 3 else bands[None]
    tags = profile.pop("tags", {})
    defaults = {
        "driver": "GTiff",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "crs": UTM,
        "transform": affine or Affine(1, 0, 600_000, 0, -1, 5_700_000),
    }
    with rasterio.open(path, "w", **{**defaults, **profile}) as dataset:
        dataset.write(bands)
        dataset.update_tags(**tags)
    return path


def scene_of(path: Path, **properties: Any) -> Scene:
    """A scene of one SAR file; keyword `a__b` stands for property `a:b`."""
    named = {key.replace("__", ":"): value for key, value in properties.items()}
    return Scene("scene", {"sar": path}, {"sarhpc:range_direction": "+col", **named})
