"""Metadata of images in the HDF5 layout of NISAR, which UAVSAR products use too.

Layout of the NISAR product specifications: `/science/LSAR` or `/science/SSAR` holds
`identification` and one product. GSLC and GCOV lie on a map grid under `grids/frequencyA|B`; RSLC
(SLC in the first samples, UAVSAR among them) in range and azimuth under `swaths/frequencyA|B`.
Angles are given on a coarse grid at several heights (`radarGrid`, `geolocationGrid`) and
interpolated here to the reference height of the terrain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from pyproj import CRS

from hpc.errors import DataError
from sarhpc.archive.formats.lookup_table import LookupTable
from sarhpc.archive.formats.nisar.cube import placement_of, surface, terrain_height
from sarhpc.archive.formats.nisar.hdf5 import (
    Array,
    hdf5_errors,
    number,
    optional,
    seconds_between,
    shape_of,
    step_of,
    text,
    units,
    values,
    vector,
)
from sarhpc.archive.formats.nisar.orbit import PlatformPass, platform_pass
from sarhpc.archive.geolocation import Geolocation, central_spacing
from sarhpc.archive.map_scale import true_spacing
from sarhpc.archive.opening import open_hdf5
from sarhpc.archive.scene import Affine6, RangeDirection

Radiometry = Literal["beta0", "gamma0", "sigma0", "unknown"]
"""Convention of the stored power; `gamma0` comes with a factor to sigma0."""

_BANDS = {"LSAR": "L", "SSAR": "S"}
_GRIDS, _SWATHS = ("GSLC", "GCOV"), ("RSLC", "SLC")
_POLARIZATIONS = ("HH", "HV", "VH", "VV")


@dataclass(frozen=True)
class NisarMetadata:
    """Metadata of one image that the archive uses."""

    dataset: str
    """Path of the image in the file."""
    shape: tuple[int, int]
    product: str
    """GSLC, GCOV or RSLC."""
    band: str
    polarization: str
    platform: str
    start: str | None
    """RFC 3339 UTC."""
    orbit: str | None
    """Platform and absolute orbit or flight: shared by the images of one pass."""
    centre_ghz: float | None
    look_side: Literal["left", "right"] | None
    range_direction: RangeDirection | None
    affine: Affine6
    crs: str | None
    spacing_m: tuple[float, float] | None
    placement: Geolocation | None
    looks: float
    radiometry: Radiometry
    incidence: LookupTable | None
    slant_step_m: float | None = None
    """Spacing of samples in slant range, of an image in it."""
    stated_spacing_m: tuple[float, float] | None = None
    """Ground spacing (row, col) at the scene centre as the file states it; `spacing_m` is measured,
    where the file gives positions or the orbit."""

    @property
    def group(self) -> str:
        """Group of the image and of its per-pixel layers."""
        return self.dataset.rpartition("/")[0]

    @property
    def is_complex(self) -> bool:
        """Whether pixels are complex; GCOV holds power."""
        return self.product != "GCOV"

    @property
    def incidence_deg(self) -> float | None:
        """Incidence in the middle of the image, degrees."""
        return self.at(self.shape[0] / 2, self.shape[1] / 2).get("incidence_deg")

    def at(self, row: float, col: float) -> dict[str, float]:
        """Incidence at a pixel, as an entry of tile metadata."""
        if self.incidence is None:
            return {}
        angle = float(self.incidence.at(np.array([row]), np.array([col]))[0, 0])
        return {"incidence_deg": round(angle, 4)} if math.isfinite(angle) else {}


def layers_of(path: Path) -> list[str]:
    """Names of the images of a file, such as `LSAR/frequencyA/HH`, in a fixed order.

    Raises:
        DataError: the file cannot be read, or holds no such image.
    """
    with hdf5_errors(path), open_hdf5(path) as file:
        found = [
            f"{band}/{frequency}/{term[:2]}"
            for band in _BANDS
            if f"science/{band}" in file
            for frequency, group in _frequencies(file, band)
            for term in _terms(group)
        ]
        kinds = [kind for band in _BANDS for kind in file.get(f"science/{band}", ())]
    if not found:
        content = f"only {', '.join(sorted(kinds))}" if kinds else "no /science/LSAR, /science/SSAR"
        raise DataError(
            f"{path} holds no image of GSLC, GCOV or RSLC in the layout of NISAR ({content}); "
            "leave it out"
        )
    return found


def _product(file: h5py.File, band: str) -> tuple[str, str]:
    """Name of the product and of the group its frequencies lie in."""
    for name in (*_GRIDS, *_SWATHS):
        inside = "grids" if name in _GRIDS else "swaths"
        if f"science/{band}/{name}/{inside}" in file:
            return name, inside
    raise KeyError(f"/science/{band} holds no GSLC, GCOV or RSLC")


def _frequencies(file: h5py.File, band: str) -> list[tuple[str, Any]]:
    try:
        product, inside = _product(file, band)
    except KeyError:
        return []
    frequencies = file[f"science/{band}/{product}/{inside}"]
    return [(n, frequencies[n]) for n in ("frequencyA", "frequencyB") if n in frequencies]


def _terms(group: Any) -> list[str]:
    """Images of one polarisation: HH of GSLC, HHHH (its power) of GCOV."""
    return [name for p in _POLARIZATIONS for name in (p, p + p) if name in group]


def read_nisar(path: Path, layer: str | None = None) -> NisarMetadata:
    """The metadata of the image `layer` (as `layers_of` names it; the only one if None).

    Raises:
        DataError: the file or the image cannot be read, or `layer` is None and there are several.
    """
    names = layers_of(path)
    if layer is None and len(names) > 1:
        raise DataError(f"{path} holds {', '.join(names)}; catalogue it, which makes each a scene")
    if layer is not None and layer not in names:
        raise DataError(f"{path} has no image {layer}; it has {', '.join(names)}")
    band, frequency, polarization = (layer or names[0]).split("/")
    with hdf5_errors(path), open_hdf5(path) as file:
        product, inside = _product(file, band)
        root = f"science/{band}/{product}"
        group = file[f"{root}/{inside}/{frequency}"]
        term = polarization if polarization in group else polarization * 2
        read = _read_grid if inside == "grids" else _read_swath
        return read(path, file, root, f"{root}/{inside}/{frequency}/{term}")


def _read_grid(path: Path, file: h5py.File, root: str, dataset: str) -> NisarMetadata:
    group, product = file[dataset].parent, root.rpartition("/")[2]
    shape = shape_of(file[dataset])
    x, y = vector(group, "xCoordinates"), vector(group, "yCoordinates")
    dx, dy = step_of(x), step_of(y)
    if (len(y), len(x)) != shape or dx <= 0 or dy >= 0:
        raise ValueError("coordinates that do not match a north-up image")
    crs = CRS.from_epsg(int(number(group, "projection")))
    if not crs.is_projected:
        raise DataError(
            f"{path} is in EPSG:{crs.to_epsg()}, not in metres; take a product on a projected grid"
        )
    cube = file.get(f"{root}/metadata/radarGrid")
    height = terrain_height(file, root)
    to_rows, to_cols = (lambda v: (v - y[0]) / dy + 0.5), (lambda v: (v - x[0]) / dx + 0.5)
    incidence = None
    if cube is not None and "incidenceAngle" in cube:
        nodes = to_rows(vector(cube, "yCoordinates")), to_cols(vector(cube, "xCoordinates"))
        incidence = surface(cube, "incidenceAngle", height, *nodes)
    affine = (dx, 0.0, float(x[0] - dx / 2), 0.0, dy, float(y[0] - dy / 2))
    return NisarMetadata(
        dataset=dataset,
        shape=shape,
        product=product,
        affine=affine,
        crs=f"EPSG:{crs.to_epsg()}",
        spacing_m=true_spacing(affine, shape, f"EPSG:{crs.to_epsg()}", path),
        placement=None,
        range_direction=_grid_direction(file, root, cube, crs),
        looks=_looks(group, shape) if product == "GCOV" else 1.0,
        radiometry=_power_of(file, root, group) if product == "GCOV" else _complex_of(file, root),
        incidence=incidence,
        **_acquisition(file, root, dataset, optional(group, "centerFrequency")),
    )


def _read_swath(path: Path, file: h5py.File, root: str, dataset: str) -> NisarMetadata:
    group = file[dataset].parent
    shape = shape_of(file[dataset])
    times, ranges = vector(group.parent, "zeroDopplerTime"), vector(group, "slantRange")
    dt, dr = step_of(times), step_of(ranges)
    if (len(times), len(ranges)) != shape or dt <= 0 or dr <= 0:
        raise ValueError("times and ranges that do not match the image")
    cube = file.get(f"{root}/metadata/geolocationGrid")
    height = terrain_height(file, root)
    placement = incidence = spacing = None
    along, across = (optional(group, f"sceneCenter{name}Spacing") for name in
                     ("AlongTrack", "GroundRange"))  # fmt: skip
    stated = None if along is None or across is None else (along, across)
    if cube is not None and "coordinateX" in cube:
        shift = seconds_between(
            units(group.parent, "zeroDopplerTime"), units(cube, "zeroDopplerTime")
        )
        rows = (vector(cube, "zeroDopplerTime") + shift - times[0]) / dt + 0.5
        cols = (vector(cube, "slantRange") - ranges[0]) / dr + 0.5
        if "incidenceAngle" in cube:
            incidence = surface(cube, "incidenceAngle", height, rows, cols)
        placement = placement_of(cube, height, rows, cols, shape, path)
        affine = placement.affine_over((0, 0), (shape[1], shape[0]))
        spacing = central_spacing(placement, shape)
    else:
        flown = platform_pass(file.get(f"{root}/metadata/orbit"), group.parent, height)
        spacing = stated if flown is None else _spacing_from(flown, ranges, dr, dt) or stated
        if flown is not None and incidence is None and spacing is not None:
            incidence = flown.incidence_table(ranges, shape[0])
        affine = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
        if spacing is not None:
            affine = (spacing[1], 0.0, 0.0, 0.0, -spacing[0], 0.0)
    return NisarMetadata(
        dataset=dataset,
        shape=shape,
        product="RSLC",
        affine=affine,
        crs=None if placement is None else placement.crs,
        spacing_m=spacing,
        placement=placement,
        range_direction="+col",
        looks=1.0,
        radiometry=_complex_of(file, root),
        incidence=incidence,
        stated_spacing_m=stated,
        slant_step_m=dr,
        **_acquisition(file, root, dataset, optional(group, "processedCenterFrequency")),
    )


def _spacing_from(
    flown: PlatformPass, ranges: Array, dr: float, dt: float
) -> tuple[float, float] | None:
    """Ground spacing (row, col) at the scene centre; None where no range reaches the ground."""
    middle = float(ranges[len(ranges) // 2])
    angle = float(flown.incidence(np.array([middle]))[0])
    if not 0 < angle < math.pi / 2:
        return None
    return flown.ground_speed(middle) * dt, dr / math.sin(angle)


def _acquisition(
    file: h5py.File, root: str, dataset: str, frequency_hz: float | None
) -> dict[str, Any]:
    """Fields of `NisarMetadata` that do not depend on geometry."""
    band = root.split("/")[1]
    identification = file[f"science/{band}/identification"]
    names = (text(identification, name) for name in ("platformName", "missionId"))
    platform = next((name for name in names if name), "nisar").lower()
    orbit = optional(identification, "absoluteOrbitNumber")
    side = (text(identification, "lookDirection") or "").lower()
    return {
        "band": _BANDS[band],
        "polarization": dataset.rpartition("/")[2][:2],
        "platform": platform,
        "start": _rfc3339(text(identification, "zeroDopplerStartTime")),
        "orbit": None if orbit is None else f"{platform}-{int(orbit)}",
        "centre_ghz": None if frequency_hz is None else round(frequency_hz / 1e9, 6),
        "look_side": side if side in ("left", "right") else None,
    }


def _rfc3339(text: str | None) -> str | None:
    """A time with nanoseconds and no zone, in the notation of STAC."""
    if not text:
        return None
    whole, _, fraction = text.rstrip("Z").partition(".")
    return f"{whole}.{fraction[:6]}Z" if fraction.strip("0") else f"{whole}Z"


def _complex_of(file: h5py.File, root: str) -> Radiometry:
    """`beta0` where the look-up table to it is one everywhere, so that |DN|^2 is beta0."""
    table = file.get(f"{root}/metadata/calibrationInformation/geometry/beta0")
    plain = table is not None and bool(np.allclose(values(table), 1.0, rtol=1e-6))
    return "beta0" if plain else "unknown"


def _power_of(file: h5py.File, root: str, group: Any) -> Radiometry:
    parameters = file.get(f"{root}/metadata/processingInformation/parameters", {})
    convention = ""
    for name in ("rtc", "radiometricTerrainCorrection"):
        if name in parameters:
            found = text(parameters[name], "outputBackscatterNormalizationConvention")
            convention = found or convention
    if convention.lower() == "sigma0":
        return "sigma0"
    # The specification defaults to gamma0, with the factor as a layer.
    has_factor = "rtcGammaToSigmaFactor" in group
    return "gamma0" if convention.lower() in ("", "gamma0") and has_factor else "unknown"


def _looks(group: Any, shape: tuple[int, int]) -> float:
    """Mean number of looks in the middle of the image; 1 if the file does not state it."""
    if "numberOfLooks" not in group:
        return 1.0
    middle = tuple(slice(max(0, n // 2 - 256), n // 2 + 256) for n in shape)
    some = np.asarray(group["numberOfLooks"][middle], np.float64)
    some = some[np.isfinite(some) & (some > 0)]
    return round(float(some.mean()), 2) if some.size else 1.0


def _grid_direction(file: h5py.File, root: str, cube: Any, crs: CRS) -> RangeDirection | None:
    """The grid axis nearest to the horizontal direction away from the sensor, at the image centre.

    From the line of sight (towards the sensor) where it is given; else, in UTM, whose grid is
    nearly north-up, from the orbit and look directions. None if neither is known.
    """
    if cube is not None and {"losUnitVectorX", "losUnitVectorY"} <= set(cube):
        level = cube["losUnitVectorX"].shape[0] // 2
        planes = (cube[name][level] for name in ("losUnitVectorX", "losUnitVectorY"))
        east, north = (-float(np.nanmean(plane)) for plane in planes)
        if math.isfinite(east) and math.isfinite(north):
            if abs(east) >= abs(north):
                return "+col" if east > 0 else "-col"
            return "-row" if north > 0 else "+row"
    identification = file[f"science/{root.split('/')[1]}/identification"]
    words = [(text(identification, n) or "").lower() for n in ("orbitPassDirection",
                                                               "lookDirection")]  # fmt: skip
    if crs.utm_zone is None or words[0] not in ("ascending", "descending"):
        return None
    if words[1] not in ("left", "right"):
        return None
    return "+col" if (words[0] == "ascending") == (words[1] == "right") else "-col"
