"""Reader of SIDD: detected SAR products in NITF, placed by their product plane.

The pixels of a SIDD are display values after a remap that is rarely linear: they have no sigma0
unless a user declares their calibration.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.archive.formats.format import Format
from sarhpc.archive.formats.geotiff.reader import GeoTiffReader
from sarhpc.archive.formats.nitf import NITF_SUFFIXES, nitf_kind
from sarhpc.archive.formats.sidd.metadata import read_sidd_metadata
from sarhpc.archive.pixel_window import Range
from sarhpc.archive.scene import SarHeader, Scene


class SiddReader:
    """A SIDD image, read window by window; threads may share one reader."""

    def __init__(self, scene: Scene, assume_calibrated: bool = False) -> None:
        """Read the header of the scene's `sar` asset.

        Raises:
            DataError: the file cannot be read as SIDD, or its range is along no image axis.
        """
        path = Path(scene.assets["sar"])
        self.metadata = known = read_sidd_metadata(path)
        self._scale = float(scene.properties.get("sarhpc:scale") or 1.0)
        from_file = {
            "sarhpc:range_direction": known.range_direction,
            "view:incidence_angle": known.incidence_deg,
            "sar:observation_direction": known.look_side,
        }
        declared = {key: value for key, value in scene.properties.items() if value is not None}
        # The scale applies after the look-up table, so the bands are read without it.
        bare = {"sarhpc:quantity": "amplitude", "sarhpc:spacing_m": list(known.spacing_m)}
        properties = {**from_file, **declared, **bare}
        scaled = properties.pop("sarhpc:scale", None) is not None
        self._bands = GeoTiffReader(
            dataclasses.replace(scene, properties=properties), assume_calibrated
        )
        if self._bands.header.shape != known.shape:
            self._bands.close()
            raise DataError(
                f"{path} holds {self._bands.header.shape} pixels, but its metadata state "
                f"{known.shape}; restore the file, or leave it out"
            )
        declared_sigma0 = scaled and properties.get("sarhpc:calibration") is None
        self._header = dataclasses.replace(
            self._bands.header,
            crs=known.placement.crs,
            affine=known.affine,
            placement=known.placement,
            calibration="sigma0" if declared_sigma0 else self._bands.header.calibration,
        )

    @property
    def header(self) -> SarHeader:
        """Geometry and radiometry of the image."""
        return self._header

    def read(self, rows: Range, cols: Range) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Pixels (H, W), float32 after the look-up table of the product, and their validity.

        Raises:
            DataError: the range leaves the image, or the file is truncated there.
        """
        raw, valid = self._bands.read(rows, cols)
        pixels = np.asarray(raw.real, np.float32)
        if self.metadata.table is not None:
            pixels = self.metadata.table[pixels.astype(np.intp)]
        pixels = pixels * np.float32(self._scale)
        pixels[~valid] = 0
        return pixels, valid

    def is_empty(self) -> bool:
        """Whether no pixel at all is valid; reads the whole file strip by strip, once."""
        return self._bands.is_empty()

    def close(self) -> None:
        """Release the file in all threads."""
        self._bands.close()


def _recognises(path: Path, quantity: str | None) -> bool:
    return nitf_kind(path) == "sidd"


def _properties(path: Path, layer: str | None) -> dict[str, Any]:
    metadata = read_sidd_metadata(path)
    polarization = metadata.polarization
    return {
        "datetime": metadata.start,
        "platform": metadata.collector.lower(),
        "sar:instrument_mode": metadata.mode,
        "sar:frequency_band": metadata.band,
        "sar:polarizations": None if polarization is None else [polarization],
        "sar:observation_direction": metadata.look_side,
        "view:incidence_angle": metadata.incidence_deg,
        "sarhpc:quantity": "amplitude",
        "sarhpc:range_direction": metadata.range_direction,
        "sarhpc:geometry": "ground",
        "sarhpc:remap": metadata.remap,
        "sarhpc:calibration": "none",
    }


FORMAT = Format(
    name="SIDD",
    suffixes=NITF_SUFFIXES,
    properties=_properties,
    open=SiddReader,
    recognises=_recognises,
)
