"""Reader of SAR images in GeoTIFF, COG and plain NITF: complex, I and Q, amplitude, intensity, dB.

What the file cannot say comes from the scene's properties: `sarhpc:range_direction`,
`sarhpc:calibration`, `sarhpc:scale` (amplitude multiplier), `sarhpc:quantity`,
`sarhpc:band_index`, `sarhpc:spacing_m` and `sarhpc:geometry` of files without an affine.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot, radians, sin
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from hpc.errors import DataError
from sarhpc.archive.formats.declared import UndeclaredError, looks_of, range_direction
from sarhpc.archive.formats.format import Format
from sarhpc.archive.formats.geotiff.content import (
    quantity_of,
    raster_properties,
    role_of,
    stored_scale,
)
from sarhpc.archive.geolocation import central_spacing, fit_gcps
from sarhpc.archive.pixel_window import Range, check_window
from sarhpc.archive.raster_files import RasterHandles, crs_text, has_affine, readable
from sarhpc.archive.scene import Affine6, RangeDirection, SarHeader, Scene
from sarhpc.archive.zero_collar import LazyCollar, ZeroCollar, find_collar


class GeoTiffReader:
    """A SAR image in a GeoTIFF, read window by window; threads may share one reader."""

    def __init__(self, scene: Scene, assume_calibrated: bool = False) -> None:
        """Read the header of the scene's `sar` asset.

        Raises:
            DataError: no usable file, a geographic CRS, useless GCPs, or an unknown range
                direction.
        """
        self._path = Path(scene.assets["sar"])
        self._handles = RasterHandles(self._path)
        self._collar = LazyCollar(self._measured_collar)
        properties = scene.properties
        dataset = self._handles.get()
        try:
            self._quantity = properties.get("sarhpc:quantity") or quantity_of(dataset, self._path)
            self._band = _band_index(dataset, properties, self._path, self._quantity)
            known, self._scale = calibration_of(dataset, properties)
            self._header = _header(
                dataset, self._path, properties, known or assume_calibrated, self._quantity
            )
        except BaseException:
            self.close()
            raise

    @property
    def header(self) -> SarHeader:
        """Geometry and radiometry of the image."""
        return self._header

    def read(
        self, rows: Range, cols: Range
    ) -> tuple[NDArray[np.complex64] | NDArray[np.float32], NDArray[np.bool_]]:
        """Pixels (H, W) in calibrated units, zero where not valid, and the mask of valid ones.

        Rows and columns are half-open ranges inside the image.

        Raises:
            DataError: the range leaves the image, or the file is truncated or corrupt there.
        """
        check_window(rows, cols, self._header.shape, self._path)
        raw = self._read_raw(rows, cols)
        valid = self._declared_valid(raw, rows, cols)
        # These tests cost a third of computing the masks, which few blocks need.
        if raw.dtype.kind in "fc" and not np.isfinite(np.vdot(raw, raw)):
            valid &= np.isfinite(raw)
        if self._quantity != "db" and not raw.all() and bool((valid & (raw == 0)).any()):
            valid &= (raw != 0) | ~self._collar.get().covers(rows, cols)
        pixels = _amplitude(raw, self._quantity)
        if self._scale != 1.0:
            pixels *= np.float32(self._scale)
        if not valid.all():
            pixels[~valid] = 0
        return pixels, valid

    def is_empty(self) -> bool:
        """Whether no pixel at all is valid; reads the whole file strip by strip, once."""
        return self._collar.get().is_whole_image

    def close(self) -> None:
        """Release the file in all threads."""
        self._handles.close()

    def _read_raw(self, rows: Range, cols: Range) -> NDArray[Any]:
        window = Window.from_slices(rows, cols)
        dataset = self._handles.get()
        with readable(self._path):
            if self._quantity == "iq":
                parts = dataset.read([self._band, self._band + 1], window=window)
                return _joined(parts)
            raw: NDArray[Any] = dataset.read(self._band, window=window)
        return raw

    def _declared_valid(self, raw: NDArray[Any], rows: Range, cols: Range) -> NDArray[np.bool_]:
        """Validity that the file declares: nodata value, mask band or alpha."""
        dataset = self._handles.get()
        nodata = dataset.nodatavals[self._band - 1]
        flags = dataset.mask_flag_enums[self._band - 1]
        valid: NDArray[np.bool_] = np.ones(raw.shape, bool)
        if nodata is not None and not np.isnan(nodata):
            # I or Q alone may equal the nodata value; a gap has it in both.
            valid &= raw != (complex(nodata, nodata) if self._quantity == "iq" else nodata)
        elif MaskFlags.all_valid not in flags and nodata is None:
            with readable(self._path):
                mask = dataset.read_masks(self._band, window=Window.from_slices(rows, cols))
            valid &= mask > 0
        return valid

    def _measured_collar(self) -> ZeroCollar:
        block = self._handles.get().block_shapes[self._band - 1]
        return find_collar(self._header.shape, self._filled, block=block)

    def _filled(self, rows: Range, cols: Range) -> NDArray[np.bool_]:
        raw = self._read_raw(rows, cols)
        # Zero dB is a valid value.
        filled = np.ones(raw.shape, bool) if self._quantity == "db" else raw != 0
        if filled.any():
            # A collar may mix zeros, the nodata value and NaN.
            filled &= self._declared_valid(raw, rows, cols) & np.isfinite(raw)
        return filled


def _amplitude(raw: NDArray[Any], quantity: str) -> NDArray[np.complex64] | NDArray[np.float32]:
    """Complex or amplitude pixels from stored values."""
    if quantity in ("complex", "iq"):
        return raw.astype(np.complex64, copy=False)
    if quantity == "db":
        return np.power(np.float32(10), raw.astype(np.float32) / np.float32(20))
    values = raw.astype(np.float32, copy=False)
    return np.sqrt(np.maximum(values, 0)) if quantity == "intensity" else values


def _joined(parts: NDArray[Any]) -> NDArray[np.complex64]:
    """Complex pixels (H, W) of in-phase and quadrature bands (2, H, W)."""
    pixels: NDArray[np.complex64] = np.empty(parts.shape[1:], np.complex64)
    pixels.real, pixels.imag = parts
    return pixels


def calibration_of(dataset: Any, properties: Mapping[str, Any]) -> tuple[bool, float]:
    """Whether scaled pixels are sigma0 amplitude, and the scale; properties override the file."""
    calibration = properties.get("sarhpc:calibration")
    scale = properties.get("sarhpc:scale")
    if scale is None and calibration is None:
        scale = stored_scale(dataset)
    known = calibration == "sigma0" or (calibration is None and scale is not None)
    return known, 1.0 if scale is None else float(scale)


def _band_index(dataset: Any, properties: Mapping[str, Any], path: Path, quantity: str) -> int:
    index = properties.get("sarhpc:band_index")
    if quantity == "iq":
        if not 1 <= int(index or 1) < dataset.count:
            raise DataError(
                f"{path} has {dataset.count} bands; I and Q are two that follow each other, "
                "band_index names the first"
            )
        return int(index or 1)
    if index is None and dataset.count > 1:
        raise UndeclaredError(
            f"{path} has {dataset.count} bands; declare which one is the image (band_index: 1 ..), "
            "or quantity: iq",
            band_index=1,
        )
    if index is not None and not 1 <= int(index) <= dataset.count:
        raise DataError(f"{path} has no band {index}; band_index counts from 1 to {dataset.count}")
    return int(index or 1)


def _header(
    dataset: Any, path: Path, properties: Mapping[str, Any], calibrated: bool, quantity: str
) -> SarHeader:
    incidence = properties.get("view:incidence_angle")
    geometry = properties.get("sarhpc:geometry", "ground")
    direction = range_direction(properties, path)
    placement = None
    unplaced = not has_affine(dataset) and properties.get("sarhpc:spacing_m") is None
    if unplaced and dataset.gcps[0]:
        # Control points lie on the ground, which includes the stretch of slant range.
        points, points_crs = dataset.gcps
        placement = fit_gcps(points, points_crs, path)
        crs: str | None = placement.crs
        affine = placement.affine_over((0, 0), (dataset.width, dataset.height))
        spacing = central_spacing(placement, dataset.shape)
    else:
        crs, affine = _placement(dataset, path, properties)
        if geometry == "slant":
            affine = ground_affine(affine, direction, crs, incidence, path)
        spacing = (hypot(affine[1], affine[4]), hypot(affine[0], affine[3]))
    return SarHeader(
        shape=(dataset.height, dataset.width),
        is_complex=quantity in ("complex", "iq"),
        affine=affine,
        crs=crs,
        spacing_m=spacing,
        range_direction=direction,
        looks=looks_of(properties),
        calibration="sigma0" if calibrated else "none",
        geometry=geometry,
        incidence_deg=incidence,
        look_side=properties.get("sar:observation_direction"),
        placement=placement,
    )


def _placement(
    dataset: Any, path: Path, properties: Mapping[str, Any]
) -> tuple[str | None, Affine6]:
    """CRS and affine in metres: the file's, or a local frame of the declared spacing."""
    spacing = properties.get("sarhpc:spacing_m")
    if not has_affine(dataset):
        if spacing is None:
            raise UndeclaredError(
                f"{path} has no geotransform; declare spacing_m: [row, col] in sarhpc.yaml, or "
                "write the file with one",
                spacing_m=[1.0, 1.0],
            )
        return None, (float(spacing[1]), 0.0, 0.0, 0.0, -float(spacing[0]), 0.0)
    if dataset.crs is not None and not dataset.crs.is_projected:
        raise DataError(
            f"{path} is in {crs_text(dataset)}, not in metres; reproject it to a projected grid "
            "from the original data, or leave it out"
        )
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    return crs_text(dataset), (a, b, c, d, e, f)


def ground_affine(
    affine: Affine6,
    direction: RangeDirection,
    crs: str | None,
    incidence_deg: float | None,
    path: Path,
) -> Affine6:
    """The local frame of a slant-range image, its range axis stretched to the ground.

    Ground spacing = slant spacing / sin(incidence), at the scene centre.

    Raises:
        DataError: the incidence is unknown, or a slant image claims a map projection.
    """
    if incidence_deg is None or not 0 < incidence_deg < 90 or crs is not None:
        raise DataError(
            f"{path} is declared in slant range, which needs an incidence_deg between 0 and 90 and "
            "allows no CRS; correct sarhpc.yaml"
        )
    stretch = 1.0 / sin(radians(incidence_deg))
    a, b, c, d, e, f = affine
    if direction.endswith("col"):
        return (a * stretch, b, c, d * stretch, e, f)
    return (a, b * stretch, c, d, e * stretch, f)


FORMAT = Format(
    name="GeoTIFF",
    suffixes=(".tif", ".tiff"),
    properties=raster_properties,
    open=GeoTiffReader,
    role=role_of,
)
