"""A folder as a scientist has it: amplitude images as GeoTIFF, and what they do not say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

DECLARED = """\
defaults:
  {role: sar, band: X, polarization: HH, range_direction: "+col", incidence_deg: 35,
   calibrated: true, quantity: amplitude}
"""


def write_geotiffs(folder: Path, scenes: int = 2, px: int = 256) -> Path:
    """The folder: single-look images of fields at 0.5 m, side by side, and `sarhpc.yaml`."""
    folder.mkdir()
    random = np.random.default_rng(7)
    row, col = np.mgrid[:px, :px]
    for number in range(scenes):
        sigma0 = np.where((row // 64 + col // 64 + number) % 2, 0.35, 0.05)
        amplitude = np.sqrt(sigma0 * random.exponential(1.0, (px, px))).astype(np.float32)
        place = from_origin(500_000 + 4 * px * number, 4_800_000, 0.5, 0.5)
        with rasterio.open(
            folder / f"pass_{number}.tif", "w", driver="GTiff", height=px, width=px, count=1,
            dtype="float32", crs="EPSG:32631", transform=place,
        ) as file:  # fmt: skip
            file.write(amplitude, 1)
    (folder / "sarhpc.yaml").write_text(DECLARED)
    return folder
