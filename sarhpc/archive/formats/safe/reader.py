"""Reader of Sentinel-1 measurements in a SAFE folder: GRD and SLC, calibrated by their annotation.

sigma0 = |DN|^2 / sigmaNought^2, per pixel. Thermal noise is not subtracted: that would leave
negative power and distort speckle statistics. Its level is in the metadata of each tile instead. A
burst (`sarhpc:layer`) is an image of its own, deramped.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from hpc.errors import DataError
from sarhpc.archive.formats.format import Format, Layer
from sarhpc.archive.formats.geotiff.reader import GeoTiffReader
from sarhpc.archive.formats.safe.bursts import Burst, burst_layers, read_burst
from sarhpc.archive.formats.safe.metadata import SafeMetadata, annotation_of, read_safe
from sarhpc.archive.geolocation import central_spacing, fit_gcps
from sarhpc.archive.pixel_window import Range, check_window
from sarhpc.archive.scene import SarHeader, Scene


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
        "sar:looks_equivalent_number": metadata.equivalent_looks,
        "view:incidence_angle": metadata.mid_incidence_deg,
        "sarhpc:quantity": "complex" if metadata.product_type == "SLC" else "amplitude",
        "sarhpc:range_direction": "+col",
        "sarhpc:flight_line": metadata.orbit,
        "sarhpc:calibration": "none" if metadata.amplitude_gain is None else "sigma0",
    }


@dataclasses.dataclass(frozen=True)
class BurstAcquisition:
    """Properties that vary within a burst, by its own lines."""

    metadata: SafeMetadata
    burst: Burst

    def at(self, row: float, col: float) -> dict[str, float]:
        """Entries of tile metadata at a pixel of the burst: also its number, and `deramped`."""
        found = self.metadata.at(self.burst.first_line + row, col)
        return {**found, "burst": self.burst.number, "deramped": True}


_DEGREES = CRS.from_epsg(4326)
_STRIP = 256


class SafeReader:
    """A Sentinel-1 measurement, read window by window; threads may share one reader."""

    def __init__(self, scene: Scene, assume_calibrated: bool = False) -> None:
        """Read the annotation and the header of the scene's `sar` asset.

        Raises:
            DataError: the annotation or the file cannot be used.
        """
        self._path = Path(scene.assets["sar"])
        self.metadata = read_safe(self._path)
        declared = {key: value for key, value in scene.properties.items() if value is not None}
        properties = safe_properties(self.metadata) | declared
        # A declared scale, or a declared lack of calibration, overrides the annotation.
        own = properties["sarhpc:calibration"] == "sigma0" and "sarhpc:scale" not in declared
        self._gain = self.metadata.amplitude_gain if own else None
        self._bands = GeoTiffReader(
            dataclasses.replace(scene, properties=properties),
            assume_calibrated,
            gcps=self.metadata.points,
        )
        self._burst: Burst | None = None
        self._header = dataclasses.replace(
            self._bands.header, local=self.metadata, slant_spacing_m=self.metadata.slant_spacing_m
        )
        layer = properties.get("sarhpc:layer")
        if layer is not None:
            try:
                self._burst = read_burst(self._path, layer)
                self._header = self._burst_header(self._burst)
            except BaseException:
                self.close()
                raise

    def _burst_header(self, burst: Burst) -> SarHeader:
        whole, path = self._bands.header, self._path
        if burst.first_line + burst.shape[0] > whole.shape[0] or burst.shape[1] != whole.shape[1]:
            raise DataError(
                f"burst {burst.number} of {path} exceeds the image of {whole.shape[0]} x "
                f"{whole.shape[1]} pixels; restore the whole .SAFE folder"
            )
        placement = fit_gcps(burst.points, _DEGREES, path)
        return dataclasses.replace(
            whole,
            shape=burst.shape,
            affine=placement.affine_over((0.0, 0.0), (burst.shape[1], burst.shape[0])),
            crs=placement.crs,
            spacing_m=central_spacing(placement, burst.shape),
            placement=placement,
            slant_spacing_m=self.metadata.slant_spacing_m,
            local=BurstAcquisition(self.metadata, burst),
        )

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
        burst = self._burst
        if burst is not None:
            check_window(rows, cols, burst.shape, self._path)
            rows = (rows[0] + burst.first_line, rows[1] + burst.first_line)
        pixels, valid = self._bands.read(rows, cols)
        if self._gain is not None:
            table = self._gain.at(np.arange(*rows, dtype=float), np.arange(*cols, dtype=float))
            np.divide(pixels, table.astype(np.float32), out=pixels)
        if burst is not None:
            inside = (rows[0] - burst.first_line, rows[1] - burst.first_line)
            valid = valid & burst.covers(inside, cols)
            if np.iscomplexobj(pixels):
                pixels = pixels * burst.ramp.deramp(inside, cols, burst.shape[1])
            pixels[~valid] = 0
        return pixels, valid

    def is_empty(self) -> bool:
        """Whether no pixel at all is valid; reads the whole file strip by strip, once."""
        if self._burst is None:
            return self._bands.is_empty()
        height, width = self._burst.shape
        strips = ((row, min(row + _STRIP, height)) for row in range(0, height, _STRIP))
        return not any(self.read(strip, (0, width))[1].any() for strip in strips)

    def close(self) -> None:
        """Release the file in all threads."""
        self._bands.close()


def _recognises(path: Path, quantity: str | None) -> bool:
    return annotation_of(path) is not None


def _properties(path: Path, layer: str | None) -> dict[str, Any]:
    known = safe_properties(read_safe(path))
    if layer is not None:
        known |= {"sarhpc:layer": layer, "datetime": read_burst(path, layer).start}
    return known


def _layers(path: Path) -> list[Layer]:
    return [Layer(name, name) for name in burst_layers(path)] or [Layer()]


def _accompanies(path: Path) -> bool:
    """Whether a file belongs to a product, but is not a measurement."""
    in_product = any(parent.suffix.upper() == ".SAFE" for parent in path.parents)
    return in_product and path.parent.name != "measurement"


FORMAT = Format(
    name="Sentinel-1 SAFE",
    suffixes=(".tif", ".tiff"),
    properties=_properties,
    open=SafeReader,
    recognises=_recognises,
    layers=_layers,
    accompanies=_accompanies,
)
