"""Reader of Sentinel-1 measurements in a SAFE folder: GRD and SLC, calibrated by their annotation.

sigma0 = |DN|^2 / sigmaNought^2, per pixel. Thermal noise is not taken off: that would leave
negative power and spoil speckle. Its level stands in the metadata of each tile instead.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.geotiff import GeoTiffReader
from sarhpc.archive.safe_metadata import SafeMetadata, read_safe
from sarhpc.archive.scene import SarHeader, Scene
from sarhpc.archive.window import Range


def safe_properties(metadata: SafeMetadata) -> dict[str, Any]:
    """STAC properties that the annotation gives.

    Sentinel-1 looks right, and samples of a line grow with range.
    """
    looks_range, looks_azimuth = metadata.looks
    return {
        "datetime": metadata.start,
        "platform": metadata.platform,
        "sar:instrument_mode": metadata.mode,
        "sar:product_type": metadata.product_type,
        "product:type": metadata.product_type,
        "sar:frequency_band": "C",
        "sar:center_frequency": metadata.centre_ghz,
        "sar:polarizations": [metadata.polarization],
        "sar:observation_direction": "right",
        "sar:looks_range": looks_range,
        "sar:looks_azimuth": looks_azimuth,
        "view:incidence_angle": metadata.mid_incidence_deg,
        "sarhpc:quantity": "complex" if metadata.product_type == "SLC" else "amplitude",
        "sarhpc:range_direction": "+col",
        "sarhpc:flight_line": metadata.orbit,
        "sarhpc:calibration": "none" if metadata.amplitude_gain is None else "sigma0",
    }


class SafeReader:
    """A Sentinel-1 measurement, read window by window; threads may share one reader."""

    def __init__(self, scene: Scene, assume_calibrated: bool = False) -> None:
        """Read the annotation and the header of the scene's `sar` asset.

        Raises:
            DataError: the annotation or the file cannot be used.
        """
        self.metadata = read_safe(Path(scene.assets["sar"]))
        declared = {key: value for key, value in scene.properties.items() if value is not None}
        properties = safe_properties(self.metadata) | declared
        # A declared factor, or the word that nothing is known, counts before the annotation.
        own = properties["sarhpc:calibration"] == "sigma0" and "sarhpc:scale" not in declared
        self._gain = self.metadata.amplitude_gain if own else None
        self._bands = GeoTiffReader(
            dataclasses.replace(scene, properties=properties), assume_calibrated
        )
        self._header = dataclasses.replace(self._bands.header, local=self.metadata)

    @property
    def header(self) -> SarHeader:
        """Geometry and radiometry of the image."""
        return self._header

    def read(
        self, rows: Range, cols: Range
    ) -> tuple[NDArray[np.complex64] | NDArray[np.float32], NDArray[np.bool_]]:
        """Pixels (H, W) whose squared magnitude is sigma0, zero where not valid, and validity.

        Raises:
            DataError: the range leaves the image, or the file is truncated or corrupt there.
        """
        pixels, valid = self._bands.read(rows, cols)
        if self._gain is not None:
            table = self._gain.at(np.arange(*rows, dtype=float), np.arange(*cols, dtype=float))
            np.divide(pixels, table.astype(np.float32), out=pixels)
        return pixels, valid

    def is_empty(self) -> bool:
        """Whether no pixel at all is valid; reads the whole file strip by strip, once."""
        return self._bands.is_empty()

    def close(self) -> None:
        """Release the file in all threads."""
        self._bands.close()
