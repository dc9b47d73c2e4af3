"""HDF5 files in the published layout of NISAR's GSLC, GCOV and RSLC, small, written for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pyproj import Transformer

EPSG = 32611
X0, Y0, DX, DY = 500_000.0, 3_800_000.0, 10.0, -5.0
HEIGHTS = np.array([-500.0, 0.0, 500.0, 1000.0])
SLANT_0, SLANT_STEP, TIME_0, TIME_STEP = 900_000.0, 6.0, 18_966.5, 6.5e-4


def incidence(row: np.ndarray, col: np.ndarray, height: float) -> np.ndarray:
    """Incidence at pixel corners (row, col) and a height, degrees: a plane, so exact to test."""
    return 34.0 + 0.01 * np.asarray(col) + 0.002 * np.asarray(row) + 0.001 * height


def _identification(file: h5py.File, band: str, **values: Any) -> None:
    known = {
        "missionId": "NISAR",
        "lookDirection": "Left",
        "orbitPassDirection": "Ascending",
        "zeroDopplerStartTime": "2025-11-09T05:16:46.500000000",
        "absoluteOrbitNumber": np.uint32(1234),
        **values,
    }
    for name, value in known.items():
        stored = np.bytes_(value) if isinstance(value, str) else value
        file[f"science/{band}/identification/{name}"] = stored


def write_grid(
    path: Path,
    images: dict[str, np.ndarray],
    *,
    product: str = "GSLC",
    band: str = "LSAR",
    frequency: str = "frequencyA",
    epsg: int = EPSG,
    line_of_sight: tuple[float, float] | None = (0.6, -0.1),
    terrain: float = 250.0,
    beta0: float | None = 1.0,
    layers: dict[str, np.ndarray] | None = None,
    convention: str = "gamma0",
    **identification: Any,
) -> Path:
    """A product on a map grid: images and further layers (H, W) by their names in the file."""
    (height, width) = next(iter(images.values())).shape
    with h5py.File(path, "a") as file:
        if f"science/{band}/identification" not in file:
            _identification(file, band, **identification)
        root = f"science/{band}/{product}"
        group = file.create_group(f"{root}/grids/{frequency}")
        group["xCoordinates"] = X0 + DX * (np.arange(width) + 0.5)
        group["yCoordinates"] = Y0 + DY * (np.arange(height) + 0.5)
        group["projection"] = np.uint32(epsg)
        group["centerFrequency"] = 1.2395e9
        group["listOfPolarizations"] = np.array([n[:2] for n in images], "S2")
        for name, pixels in (images | (layers or {})).items():
            chunks = tuple(min(32, n) for n in pixels.shape)
            group.create_dataset(name, data=pixels, chunks=chunks, compression="gzip")
        metadata = file.require_group(f"{root}/metadata")
        if "radarGrid" not in metadata:
            _radar_grid(metadata, height, width, line_of_sight)
            parameters = metadata.create_group("processingInformation/parameters")
            parameters["referenceTerrainHeight"] = np.full((3, 4), terrain, np.float32)
            parameters["rtc/outputBackscatterNormalizationConvention"] = np.bytes_(convention)
            if beta0 is not None:
                table = np.full((4, 5), beta0, np.float32)
                metadata["calibrationInformation/geometry/beta0"] = table
    return path


def _radar_grid(
    metadata: h5py.Group, height: int, width: int, line_of_sight: tuple[float, float] | None
) -> None:
    rows, cols = np.arange(-20.0, height + 40, 20), np.arange(-20.0, width + 40, 20)
    cube = metadata.create_group("radarGrid")
    cube["xCoordinates"], cube["yCoordinates"] = X0 + DX * cols, Y0 + DY * rows
    cube["heightAboveEllipsoid"] = HEIGHTS
    planes = [incidence(rows[:, None], cols[None], h) for h in HEIGHTS]
    cube["incidenceAngle"] = np.array(planes, np.float32)
    if line_of_sight is not None:
        for name, value in zip(("losUnitVectorX", "losUnitVectorY"), line_of_sight, strict=True):
            cube[name] = np.full((len(HEIGHTS), len(rows), len(cols)), value, np.float32)


def swath_to_map(row: np.ndarray, col: np.ndarray, height: float) -> tuple[Any, Any]:
    """UTM position of pixel corners of `write_swath`: left-looking, flying north-north-west."""
    along, across = 4.0 * np.asarray(row), 7.5 * np.asarray(col) + 1e-4 * np.asarray(col) ** 2
    x = 600_000 - 0.97 * across - 0.24 * along + 0.3 * height
    y = 3_700_000 - 0.24 * across + 0.97 * along
    return x, y


def write_swath(
    path: Path,
    images: dict[str, np.ndarray],
    *,
    product: str = "RSLC",
    grid: bool = True,
    valid: tuple[int, int] | None = None,
    spacing: tuple[float, float] | None = (4.0, 7.5),
    terrain: float = 250.0,
    **identification: Any,
) -> Path:
    """A product in range and azimuth: images (H, W) by polarisation, placed by a coarse grid."""
    (height, width) = next(iter(images.values())).shape
    with h5py.File(path, "w") as file:
        _identification(file, "LSAR", **identification)
        root = f"science/LSAR/{product}"
        swaths = file.create_group(f"{root}/swaths")
        swaths["zeroDopplerTime"] = TIME_0 + TIME_STEP * np.arange(height)
        swaths["zeroDopplerTime"].attrs["units"] = np.bytes_("seconds since 2025-11-09T00:00:00")
        group = swaths.create_group("frequencyA")
        group["slantRange"] = SLANT_0 + SLANT_STEP * np.arange(width)
        group["processedCenterFrequency"] = 1.2575e9
        if spacing is not None:
            group["sceneCenterAlongTrackSpacing"], group["sceneCenterGroundRangeSpacing"] = spacing
        for name, pixels in images.items():
            group[name] = pixels
        if valid is not None:
            group["validSamplesSubSwath1"] = np.tile(np.array(valid, np.int32), (height, 1))
        metadata = file.create_group(f"{root}/metadata")
        metadata["calibrationInformation/geometry/beta0"] = np.ones((4, 5), np.float32)
        parameters = metadata.create_group("processingInformation/parameters")
        parameters["referenceTerrainHeight"] = np.full(7, terrain, np.float32)
        if grid:
            _geolocation_grid(metadata, height, width)
    return path


def _geolocation_grid(metadata: h5py.Group, height: int, width: int) -> None:
    """Nodes in degrees (EPSG 4326), as first samples have them, at several heights."""
    rows, cols = np.arange(-16.0, height + 32, 16), np.arange(-24.0, width + 48, 24)
    cube = metadata.create_group("geolocationGrid")
    cube["zeroDopplerTime"] = TIME_0 + TIME_STEP * (rows - 0.5)
    cube["zeroDopplerTime"].attrs["units"] = np.bytes_("seconds since 2025-11-09T00:00:00")
    cube["slantRange"] = SLANT_0 + SLANT_STEP * (cols - 0.5)
    cube["heightAboveEllipsoid"] = HEIGHTS
    cube["epsg"] = np.uint32(4326)
    to_degrees = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4326", always_xy=True)
    places = [to_degrees.transform(*swath_to_map(rows[:, None], cols[None], h)) for h in HEIGHTS]
    cube["coordinateX"] = np.array([lon for lon, _ in places])
    cube["coordinateY"] = np.array([lat for _, lat in places])
    planes = [incidence(rows[:, None], cols[None], h) for h in HEIGHTS]
    cube["incidenceAngle"] = np.array(planes, np.float32)


def speckle(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Single-look complex pixels (H, W) of unit power."""
    random = np.random.default_rng(seed)
    pixels = random.normal(size=(*shape, 2)) @ np.array([1, 1j]) / np.sqrt(2)
    return pixels.astype(np.complex64)
