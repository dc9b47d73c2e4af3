"""Reader of GSLC, GCOV and RSLC images in the HDF5 layout of NISAR, of UAVSAR in that layout too.

GSLC and RSLC: |DN|^2 is beta0, and sigma0 = beta0 sin(incidence) on the ellipsoid. GCOV: power,
gamma0 of the terrain, and sigma0 = gamma0 times the product's own factor, pixel by pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.formats.declared import UndeclaredError, looks_of, range_direction
from sarhpc.archive.formats.format import Format, Layer
from sarhpc.archive.formats.nisar.hdf5 import hdf5_errors
from sarhpc.archive.formats.nisar.metadata import NisarMetadata, layers_of, read_nisar
from sarhpc.archive.opening import open_hdf5
from sarhpc.archive.pixel_window import Range, check_window
from sarhpc.archive.scene import SarHeader, Scene
from sarhpc.archive.zero_collar import LazyCollar, ZeroCollar, find_collar

_CACHE_BYTES = 64 << 20
"""Of chunks, per open image: one row of chunks, read tile by tile, is decompressed once."""
_OUTSIDE = (0, 255)
"""Values of the layer `mask` outside the swath, and its fill value."""


def nisar_properties(metadata: NisarMetadata) -> dict[str, Any]:
    """STAC properties that the file gives."""
    return {
        "datetime": metadata.start,
        "platform": metadata.platform,
        "sar:product_type": metadata.product,
        "product:type": metadata.product,
        "sar:frequency_band": metadata.band,
        "sar:center_frequency": metadata.centre_ghz,
        "sar:polarizations": [metadata.polarization],
        "sar:observation_direction": metadata.look_side,
        "sar:looks_equivalent_number": metadata.looks,
        "view:incidence_angle": metadata.incidence_deg,
        "sarhpc:quantity": "complex" if metadata.is_complex else "intensity",
        "sarhpc:range_direction": metadata.range_direction,
        "sarhpc:flight_line": metadata.orbit,
        "sarhpc:calibration": "sigma0" if is_calibrated(metadata) else "none",
    }


def is_calibrated(metadata: NisarMetadata) -> bool:
    """Whether the file states how its pixels convert to sigma0."""
    if metadata.radiometry == "beta0":
        return metadata.incidence is not None
    return metadata.radiometry in ("gamma0", "sigma0")


class NisarReader:
    """One image of such a file, read window by window; threads may share one reader."""

    def __init__(self, scene: Scene, assume_calibrated: bool = False) -> None:
        """Read the metadata of the scene's `sar` asset, of the image `sarhpc:layer`.

        Raises:
            DataError: the file cannot be used, or the position of its pixels is unknown.
        """
        self._path = Path(scene.assets["sar"])
        self._collar = LazyCollar(self._measured_collar)
        declared = {key: value for key, value in scene.properties.items() if value is not None}
        self.metadata = read_nisar(self._path, declared.get("sarhpc:layer"))
        properties = nisar_properties(self.metadata) | declared
        scale = declared.get("sarhpc:scale")
        self._scale = 1.0 if scale is None else float(scale)
        known = properties["sarhpc:calibration"] == "sigma0" or scale is not None
        # A declared scale, or a declared lack of calibration, overrides the file.
        self._own = known and scale is None and is_calibrated(self.metadata)
        self._header = self._placed_header(properties, known or assume_calibrated)
        with hdf5_errors(self._path):
            self._file = open_hdf5(self._path, _CACHE_BYTES)
            layers = self._file[self.metadata.group]
            self._swaths = [name for name in layers if name.startswith("validSamplesSubSwath")]
            self._bounded = "mask" in layers or bool(self._swaths)

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
        check_window(rows, cols, self._header.shape, self._path)
        with hdf5_errors(self._path):
            raw = self._read_raw(rows, cols)
            valid = np.isfinite(raw) & self._seen(rows, cols)
            # With declared bounds an image of 20 GB need not be read to find them.
            if not self._bounded and bool((valid & (raw == 0)).any()):
                valid &= (raw != 0) | ~self._collar.get().covers(rows, cols)
            pixels = self._calibrated(raw, rows, cols)
        if self._scale != 1.0:
            pixels *= np.float32(self._scale)
        valid &= np.isfinite(pixels)
        if not valid.all():
            pixels[~valid] = 0
        return pixels, valid

    def is_empty(self) -> bool:
        """Whether no pixel at all is valid; reads the whole image strip by strip, once."""
        with hdf5_errors(self._path):
            return self._collar.get().is_whole_image

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _placed_header(self, properties: dict[str, Any], calibrated: bool) -> SarHeader:
        metadata, spacing = self.metadata, properties.get("sarhpc:spacing_m")
        affine, placed = metadata.affine, metadata.spacing_m
        if placed is None:
            if spacing is None:
                raise UndeclaredError(
                    f"{self._path} states neither position nor spacing of its pixels; "
                    "declare spacing_m: [row, col] on the ground in sarhpc.yaml",
                    spacing_m=[1.0, 1.0],
                )
            placed = (float(spacing[0]), float(spacing[1]))
            affine = (placed[1], 0.0, 0.0, 0.0, -placed[0], 0.0)
        return SarHeader(
            shape=metadata.shape,
            is_complex=metadata.is_complex,
            affine=affine,
            crs=metadata.crs,
            spacing_m=placed,
            range_direction=range_direction(properties, self._path),
            looks=looks_of(properties),
            calibration="sigma0" if calibrated else "none",
            incidence_deg=properties.get("view:incidence_angle"),
            look_side=properties.get("sar:observation_direction"),
            placement=metadata.placement,
            local=metadata if metadata.incidence is not None else None,
        )

    def _calibrated(
        self, raw: NDArray[Any], rows: Range, cols: Range
    ) -> NDArray[np.complex64] | NDArray[np.float32]:
        kind = self.metadata.radiometry
        if not self.metadata.is_complex:
            power = raw
            if self._own and kind == "gamma0":
                factor = self._file[f"{self.metadata.group}/rtcGammaToSigmaFactor"]
                power = raw * np.asarray(factor[slice(*rows), slice(*cols)], np.float32)
            return np.sqrt(np.maximum(power, 0), dtype=np.float32)
        if self._own and self.metadata.incidence is not None:
            row, col = (np.arange(*span, dtype=np.float64) + 0.5 for span in (rows, cols))
            sine = np.sin(np.radians(self.metadata.incidence.at(row, col)))
            return np.asarray(raw * np.sqrt(np.maximum(sine, 0)).astype(np.float32), np.complex64)
        return raw

    def _read_raw(self, rows: Range, cols: Range) -> NDArray[Any]:
        stored = self._file[self.metadata.dataset][slice(*rows), slice(*cols)]
        if stored.dtype.names is not None:
            # Complex numbers of two half floats, for which NumPy has no type.
            pixels: NDArray[np.complex64] = np.empty(stored.shape, np.complex64)
            pixels.real, pixels.imag = stored["r"], stored["i"]
            return pixels
        return np.asarray(stored, np.complex64 if self.metadata.is_complex else np.float32)

    def _seen(self, rows: Range, cols: Range) -> NDArray[np.bool_]:
        """Pixels (H, W) that the file marks as part of the image."""
        shape = rows[1] - rows[0], cols[1] - cols[0]
        group = self._file[self.metadata.group]
        if "mask" in group:
            return ~np.isin(group["mask"][slice(*rows), slice(*cols)], _OUTSIDE)
        if not self._swaths:
            return np.ones(shape, bool)
        seen, col = np.zeros(shape, bool), np.arange(*cols)
        for name in self._swaths:
            first, last = np.asarray(group[name][slice(*rows)], np.int64).T
            seen |= (col >= first[:, None]) & (col < last[:, None])
        return seen

    def _measured_collar(self) -> ZeroCollar:
        image = self._file[self.metadata.dataset]
        return find_collar(self._header.shape, self._filled, block=image.chunks)

    def _filled(self, rows: Range, cols: Range) -> NDArray[np.bool_]:
        raw = self._read_raw(rows, cols)
        return np.asarray((raw != 0) & np.isfinite(raw) & self._seen(rows, cols))


def _properties(path: Path, layer: str | None) -> dict[str, Any]:
    return nisar_properties(read_nisar(path, layer)) | {"sarhpc:layer": layer}


def _layers(path: Path) -> list[Layer]:
    """Every image of one polarisation; the scene of a single one has the file's name."""
    names = layers_of(path)
    if len(names) == 1:
        return [Layer(names[0])]
    return [Layer(name, name.replace("frequency", "")) for name in names]


FORMAT = Format(
    name="NISAR HDF5",
    suffixes=(".h5", ".hdf5"),
    properties=_properties,
    open=NisarReader,
    layers=_layers,
)
