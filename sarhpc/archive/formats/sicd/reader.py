"""Reader of SICD: complex SAR images in NITF with their acquisition geometry.

SICD rows run along range, away from the sensor, and the image is a view from above (SICD Volume 1,
image grid), so the format defines range direction and handedness. The affine is a local frame in
metres with ground spacing; the corner coordinates are used for search and split only.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.archive.formats.format import BAND_QUANTITIES, Format
from sarhpc.archive.formats.nitf import NITF_SUFFIXES, nitf_kind
from sarhpc.archive.formats.sicd.geometry import Rectification
from sarhpc.archive.formats.sicd.metadata import (
    SicdMetadata,
    open_sicd,
    read_sicd_metadata,
    sicd_errors,
)
from sarhpc.archive.formats.sicd.polynomials import Deskew, noise_floor_db
from sarhpc.archive.formats.sicd.projection import placed_pixels
from sarhpc.archive.opening import require_bounded
from sarhpc.archive.pixel_window import Range, check_window
from sarhpc.archive.response import AxisResponse
from sarhpc.archive.scene import AS_FORMED, SarHeader, Scene
from sarhpc.archive.zero_collar import LazyCollar, ZeroCollar, find_collar


class SicdReader:
    """A SICD image, read window by window; threads may share one reader."""

    def __init__(self, scene: Scene, assume_calibrated: bool = False) -> None:
        """Read the header of the scene's `sar` asset.

        Raises:
            DataError: the file cannot be read as SICD.
        """
        self._path = Path(scene.assets["sar"])
        self._local = threading.local()
        self._files: list[IO[bytes]] = []
        self._collar = LazyCollar(self._measured_collar)
        with sicd_errors(self._path), self._path.open("rb") as file:
            open_sicd(file, self._path)
        self.metadata = read_sicd_metadata(self._path)
        require_bounded(self._path, 8 * math.prod(self.metadata.shape))
        self._shear = None if scene.properties.get(AS_FORMED) else self._rectification()
        row, col = self.metadata.spacing_m if self._shear is None else self._shear.spacing_m
        self._deskew = self._azimuth_deskew()
        scale = scene.properties.get("sarhpc:scale")
        calibration = scene.properties.get("sarhpc:calibration")
        self._scale = 1.0 if scale is None else float(scale)
        # A declaration overrides the calibration of the file.
        overridden = scale is not None or calibration == "none"
        self._sigma_zero = None if overridden else self.metadata.sigma_zero
        known = calibration == "sigma0" or (
            calibration is None and (self._sigma_zero is not None or scale is not None)
        )
        self._header = SarHeader(
            shape=self.metadata.shape if self._shear is None else self._shear.shape,
            is_complex=True,
            affine=(col, 0.0, 0.0, 0.0, -row, 0.0),
            crs=None,
            spacing_m=(row, col),
            range_direction="+row",
            looks=1.0,
            calibration="sigma0" if known or assume_calibrated else "none",
            geometry="ground" if self.metadata.image_plane == "GROUND" else "slant",
            incidence_deg=self.metadata.incidence_deg,
            look_side=self.metadata.look_side,
            # The corners of a rectified image lie outside the stored one: a box around it is kept.
            corners=self.metadata.corners,
            local=self._local_noise(),
            slant_spacing_m=self._slant_spacing(),
            response=_on_ground(self.metadata.response, (row, col), self.metadata),
            facts=self._facts(),
        )
        if scene.properties.get(AS_FORMED):
            self._header = self._placed(self._header)

    def _placed(self, header: SarHeader) -> SarHeader:
        """The header with the position of pixels on the Earth, where the file has what it takes."""
        placement = placed_pixels(self._path, self.metadata)
        if placement is None:
            return header
        rows, cols = header.shape
        affine = placement.affine_over((0, 0), (cols, rows))
        return replace(header, crs=placement.crs, affine=affine, placement=placement, corners=None)

    def _rectification(self) -> Rectification | None:
        axes = self.metadata.axes
        if axes is None:
            return None
        return Rectification.of(
            axes, self.metadata.slant_spacing_m, self.metadata.shape, str(self._path)
        )

    def _azimuth_deskew(self) -> Deskew | None:
        rows, cols = self.metadata.shape
        x, y = self._distances((0, rows), (0, cols))
        some = [np.linspace(axis[0], axis[-1], min(axis.size, 9)) for axis in (x, y)]
        return Deskew.needed(
            self.metadata.azimuth_centre,
            self.metadata.azimuth_sign,
            some[0],
            some[1],
            self.metadata.slant_spacing_m[1],
        )

    def _local_noise(self) -> _LocalNoise | None:
        known = self._sigma_zero is not None and self.metadata.noise_db is not None
        return _LocalNoise(self) if known else None

    def _slant_spacing(self) -> tuple[float, float] | None:
        in_slant = self.metadata.image_plane != "GROUND" and self._shear is None
        return self.metadata.slant_spacing_m if in_slant else None

    def _facts(self) -> dict[str, Any]:
        """What was done to the image, where anything was."""
        facts: dict[str, Any] = {}
        axes = self.metadata.axes
        if self._shear is not None and axes is not None:
            facts["rectified_axes_deg"] = round(axes.angle_deg, 3)
        if self._deskew is not None:
            facts["deskewed"] = True
        return facts

    @property
    def header(self) -> SarHeader:
        """Geometry and radiometry of the image."""
        return self._header

    def read(self, rows: Range, cols: Range) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Pixels (H, W), complex64, zero where not valid, and the mask of valid ones.

        Raises:
            DataError: the range leaves the image, or the file is truncated there.
        """
        check_window(rows, cols, self._header.shape, self._path)
        if self._shear is None:
            return self._calibrated(rows, cols)
        needed = self._shear.rows_needed(rows, cols)
        if needed[1] <= needed[0]:
            shape = rows[1] - rows[0], cols[1] - cols[0]
            return np.zeros(shape, np.complex64), np.zeros(shape, np.bool_)
        pixels, valid = self._calibrated(needed, cols)
        return self._shear.apply(pixels, valid, needed[0], rows, cols)

    def _calibrated(
        self, rows: Range, cols: Range
    ) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Deskewed pixels (H, W) of the stored grid in calibrated units, and their validity."""
        pixels = self._read_raw(rows, cols)
        valid = np.isfinite(pixels)
        if bool((pixels == 0).any()):
            valid &= (pixels != 0) | ~self._collar.get().covers(rows, cols)
        pixels *= self._amplitude_factor(rows, cols)
        if self._deskew is not None:
            pixels *= self._deskew.factor(*self._distances(rows, cols))
        pixels[~valid] = 0
        return pixels, valid

    def _distances(
        self, rows: Range, cols: Range
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances from the SCP (H,) along rows and (W,) along columns of the image plane, m."""
        meta = self.metadata
        x = (np.arange(*rows) + meta.first_pixel[0] - meta.scp_pixel[0]) * meta.slant_spacing_m[0]
        y = (np.arange(*cols) + meta.first_pixel[1] - meta.scp_pixel[1]) * meta.slant_spacing_m[1]
        return np.asarray(x, np.float64), np.asarray(y, np.float64)

    def noise_floor_db(self, row: float, col: float) -> float | None:
        """Noise-equivalent sigma0 at a pixel of the image as it is read, dB; None if unknown."""
        if self._shear is not None:
            row = float(self._shear.native_row(row, col))
        meta = self.metadata
        x, y = (
            (place + meta.first_pixel[axis] - meta.scp_pixel[axis]) * meta.slant_spacing_m[axis]
            for axis, place in enumerate((row, col))
        )
        return noise_floor_db(meta.noise_db, self._sigma_zero, x, y)

    def is_empty(self) -> bool:
        """Whether no pixel at all is valid; reads the whole file strip by strip, once."""
        return self._collar.get().is_whole_image

    def close(self) -> None:
        """Release the file in all threads."""
        while self._files:
            self._files.pop().close()

    def _read_raw(self, rows: Range, cols: Range) -> NDArray[np.complex64]:
        with sicd_errors(self._path):
            if not hasattr(self._local, "reader"):
                file = self._path.open("rb")
                self._files.append(file)
                self._local.reader = open_sicd(file, self._path)
            raw, _ = self._local.reader.read_sub_image(rows[0], cols[0], rows[1], cols[1])
        return _as_complex(raw, self._path)

    def _amplitude_factor(self, rows: Range, cols: Range) -> NDArray[np.float32]:
        """sqrt(SigmaZeroSF) at each pixel (H, W) or a constant, so that |s|^2 becomes sigma0.

        SICD Volume 1, Radiometric: sigma0 = SF(xrow, ycol) |pixel|^2 with distances from the SCP.
        """
        if self._sigma_zero is None:
            return np.float32(self._scale) * np.ones((1, 1), np.float32)
        x, y = self._distances(rows, cols)
        power = np.polynomial.polynomial.polygrid2d(x, y, self._sigma_zero)
        return np.sqrt(power).astype(np.float32)

    def _measured_collar(self) -> ZeroCollar:
        return find_collar(self.metadata.shape, self._filled)

    def _filled(self, rows: Range, cols: Range) -> NDArray[np.bool_]:
        raw = self._read_raw(rows, cols)
        return np.asarray((raw != 0) & np.isfinite(raw))


@dataclass(frozen=True)
class _LocalNoise:
    """Noise-equivalent sigma0 within an image."""

    reader: SicdReader

    def at(self, row: float, col: float) -> dict[str, float]:
        """`noise_floor_db` at a stored pixel, as an entry of tile metadata."""
        level = self.reader.noise_floor_db(row, col)
        return {} if level is None else {"noise_floor_db": level}


def _on_ground(
    response: tuple[AxisResponse, AxisResponse] | None,
    ground_m: tuple[float, float],
    metadata: SicdMetadata,
) -> tuple[AxisResponse, AxisResponse] | None:
    """The response with its widths on the ground instead of in the image plane."""
    if response is None:
        return None
    row, col = (
        replace(axis, irw_m=None if axis.irw_m is None else axis.irw_m * ground / in_plane)
        for axis, ground, in_plane in zip(response, ground_m, metadata.slant_spacing_m, strict=True)
    )
    return row, col


def _as_complex(raw: NDArray[Any], path: Path) -> NDArray[np.complex64]:
    """Native complex64 (H, W) from RE32F_IM32F or RE16I_IM16I samples."""
    if raw.dtype.names is None:
        return raw.astype(np.complex64)
    if "real" not in raw.dtype.names:
        raise DataError(
            f"{path} stores amplitude and phase in bytes, which is not supported; convert it"
        )
    pixels: NDArray[np.complex64] = np.empty(raw.shape, np.complex64)
    pixels.real, pixels.imag = raw["real"], raw["imag"]
    return pixels


def _recognises(path: Path, quantity: str | None) -> bool:
    return quantity not in BAND_QUANTITIES and nitf_kind(path) == "sicd"


def _properties(path: Path, layer: str | None) -> dict[str, Any]:
    metadata = read_sicd_metadata(path)
    polarization = metadata.polarization
    return {
        "datetime": metadata.start,
        "platform": metadata.collector.lower(),
        "sar:instrument_mode": metadata.mode,
        "sar:frequency_band": metadata.band,
        "sar:center_frequency": metadata.centre_ghz,
        "sar:polarizations": None if polarization is None else [polarization],
        "sar:observation_direction": metadata.look_side,
        "sar:looks_equivalent_number": 1.0,
        "view:incidence_angle": metadata.incidence_deg,
        "sarhpc:quantity": "complex",
        "sarhpc:range_direction": "+row",
        "sarhpc:geometry": "ground" if metadata.image_plane == "GROUND" else "slant",
        "sarhpc:calibration": "none" if metadata.sigma_zero is None else "sigma0",
    }


FORMAT = Format(
    name="SICD",
    suffixes=NITF_SUFFIXES,
    properties=_properties,
    open=SicdReader,
    recognises=_recognises,
)
