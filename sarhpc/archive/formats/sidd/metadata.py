"""Metadata of SIDD files (detected products in NITF): image plane, sensor and pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sarkit.sidd
from numpy.typing import NDArray
from pyproj import Transformer

from hpc.errors import DataError
from sarhpc.archive.formats.sicd.metadata import band_of
from sarhpc.archive.geolocation import fit_affine, lattice, zone_of
from sarhpc.archive.scene import Affine6, RangeDirection

Vector = NDArray[np.float64]

PIXEL_TYPES = ("MONO8I", "MONO8LU", "MONO16I")
"""Pixel types of one grey value; colour products have no amplitude."""

MOST_SQUINT_DEG = 15.0
"""Largest angle between range and the image axis that is taken as the range axis."""

_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PlanePlacement:
    """Pixels on the product plane of a SIDD, in metres of `crs`."""

    crs: str
    reference: Vector
    """Earth-centred position (3,) of the reference point, metres."""
    steps: NDArray[np.float64]
    """Earth-centred displacement (2, 3) of one (col, row), metres."""
    reference_pixel: Vector
    """Reference point (2,) as (col, row) of pixel corners."""

    def to_map(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map coordinates (..., 2) as (x, y) of pixel corners (..., 2) as (col, row).

        SIDD Volume 1, plane projection: P = P_ref + r (row - row_ref) + c (col - col_ref).
        """
        flat = positions.reshape(-1, 2) - self.reference_pixel
        x, y, z = (self.reference + flat @ self.steps).T
        # The plane is tangent to the ellipsoid at the reference point; heights are dropped.
        mapped = Transformer.from_crs("EPSG:4978", self.crs, always_xy=True).transform(x, y, z)
        return np.stack(mapped[:2], axis=1).reshape(positions.shape)

    def to_json(self) -> dict[str, Any]:
        """Model, as written to metadata."""
        return {"model": "plane"}


@dataclass(frozen=True)
class SiddMetadata:
    """Metadata of a SIDD that the archive uses."""

    shape: tuple[int, int]
    pixel_type: str
    remap: str | None
    """Name of the display remap, after which pixels have no radiometric scale."""
    table: NDArray[np.float32] | None
    """Display value (256,) of each 8-bit code, for MONO8LU."""
    placement: PlanePlacement
    affine: Affine6
    """Nearest single affine of the placement."""
    spacing_m: tuple[float, float]
    range_direction: RangeDirection
    incidence_deg: float
    look_side: Literal["left", "right"]
    start: str
    collector: str
    mode: str
    polarization: str | None
    band: str | None


def read_sidd_metadata(path: Path) -> SiddMetadata:
    """The metadata of the SIDD at `path`.

    Raises:
        DataError: not a SIDD of a known version, an incomplete or damaged one, a projection other
            than a plane, or a range direction along no image axis.
    """
    try:
        with path.open("rb") as file:
            images = sarkit.sidd.NitfReader(file).metadata.images
        return _metadata(_only(images, path).xmltree, path)
    except DataError:
        raise
    except Exception as error:  # the parser asserts, and damage can raise any exception
        raise DataError(
            f"cannot read {path} as SIDD: {error!r}; restore the file, or leave it out"
        ) from error


def _only(images: list[Any], path: Path) -> Any:
    if len(images) != 1:
        raise DataError(f"{path} holds {len(images)} SIDD images; split it into files of one image")
    return images[0]


def _metadata(tree: Any, path: Path) -> SiddMetadata:
    xml = sarkit.sidd.XmlHelper(tree)

    def load(name: str) -> Any:
        return xml.load("./" + "/".join("{*}" + part for part in name.split("/")))

    pixel_type = str(load("Display/PixelType"))
    if pixel_type not in PIXEL_TYPES:
        raise DataError(
            f"{path} has pixels of type {pixel_type}, which have no amplitude (only "
            f"{', '.join(PIXEL_TYPES)}); leave it out"
        )
    if load("Measurement/PlaneProjection/SampleSpacing") is None:
        raise DataError(
            f"{path} is not projected to a plane; no other projection is supported; convert it"
        )
    reference = np.asarray(load("Measurement/PlaneProjection/ReferencePoint/ECEF"), float)
    axes = _axes(load, path)
    shape = tuple(int(n) for n in load("Measurement/PixelFootprint"))
    placement = _placement(load, shape, reference, axes)
    position, velocity = _sensor(load)
    look = reference - position
    information = "ExploitationFeatures/Collection/Information"
    collection = tree.find(".//{*}Collection/{*}Information")
    corners = lattice((0, 0), (shape[1], shape[0]))
    table = tree.find(".//{*}RemapLUT")
    return SiddMetadata(
        shape=(shape[0], shape[1]),
        pixel_type=pixel_type,
        remap=tree.findtext(".//{*}RemapType"),
        table=None if table is None else np.array(table.text.split(), np.float32),
        placement=placement,
        affine=fit_affine(corners, placement.to_map(corners)),
        spacing_m=(float(np.linalg.norm(axes[0])), float(np.linalg.norm(axes[1]))),
        range_direction=_range_axis(look, axes, path),
        incidence_deg=_incidence(look, reference),
        look_side="left" if np.dot(np.cross(position, velocity), look) > 0 else "right",
        start=collection.findtext("{*}CollectionDateTime"),
        collector=str(load(f"{information}/SensorName")),
        mode=collection.findtext("{*}RadarMode/{*}ModeID")
        or collection.findtext("{*}RadarMode/{*}ModeType"),
        polarization=_polarization(collection),
        band=_band(tree),
    )


def _axes(load: Any, path: Path) -> NDArray[np.float64]:
    """Earth-centred displacement (2, 3) of one row and one column, metres."""
    plane = "Measurement/PlaneProjection"
    spacing = np.asarray(load(f"{plane}/SampleSpacing"), float)
    units = [load(f"{plane}/ProductPlane/{axis}UnitVector") for axis in ("Row", "Col")]
    vectors = np.asarray(units, float)
    lengths = np.linalg.norm(vectors, axis=1)
    if (np.abs(lengths - 1) > _UNIT_TOLERANCE).any() or not (spacing > 0).all():
        raise DataError(
            f"{path} describes no plane: unit vectors of length {lengths[0]:g} and {lengths[1]:g}, "
            f"spacing {spacing[0]:g} x {spacing[1]:g} m; restore its metadata, or leave it out"
        )
    return np.asarray(vectors * spacing[:, None], np.float64)


def _placement(
    load: Any, shape: tuple[int, ...], reference: Vector, axes: NDArray[np.float64]
) -> PlanePlacement:
    """The placement of the pixels of the image, which may be a chip of a larger product."""
    row0, col0 = load("Measurement/PlaneProjection/ReferencePoint/Point")
    centre = np.array([col0, row0], float)
    steps = axes[::-1]
    chip = "DownstreamReprocessing/GeometricChip"
    first = load(f"{chip}/OriginalUpperLeftCoordinate")
    if first is not None:
        right = np.asarray(load(f"{chip}/OriginalUpperRightCoordinate"), float) - first
        down = np.asarray(load(f"{chip}/OriginalLowerLeftCoordinate"), float) - first
        # (row, col) of the product per (col, row) of the chip.
        per_col, per_row = right / max(shape[1] - 1, 1), down / max(shape[0] - 1, 1)
        turn = np.array([per_col[::-1], per_row[::-1]])
        centre = (centre - np.asarray(first, float)[::-1]) @ np.linalg.inv(turn)
        steps = turn @ steps
    x, y, z = reference
    to_degrees = Transformer.from_crs("EPSG:4978", "EPSG:4326", always_xy=True)
    degrees = np.array(to_degrees.transform(x, y, z))
    # SIDD refers to pixel centres, affines of this project to pixel corners.
    return PlanePlacement(zone_of(degrees[:1], degrees[1:2]), reference, steps, centre + 0.5)


def _sensor(load: Any) -> tuple[Vector, Vector]:
    """Position and velocity (3,) of the antenna at the time of the reference point."""
    time = float(np.asarray(load("Measurement/PlaneProjection/TimeCOAPoly"))[0, 0])
    track = np.asarray(load("Measurement/ARPPoly"), float)
    speed = np.polynomial.polynomial.polyder(track)
    return (
        np.asarray(np.polynomial.polynomial.polyval(time, track), np.float64),
        np.asarray(np.polynomial.polynomial.polyval(time, speed), np.float64),
    )


def _range_axis(look: Vector, axes: NDArray[np.float64], path: Path) -> RangeDirection:
    along = axes @ look / np.linalg.norm(axes, axis=1)
    axis = int(np.argmax(np.abs(along)))
    off = math.degrees(math.atan2(abs(along[1 - axis]), abs(along[axis])))
    if off > MOST_SQUINT_DEG:
        raise DataError(
            f"the range direction is {off:.0f} degrees off the image axes of {path}, which no "
            "exact rotation corrects; take the product in its range and azimuth grid"
        )
    names: tuple[tuple[RangeDirection, RangeDirection], ...] = (("-row", "+row"), ("-col", "+col"))
    return names[axis][int(along[axis] > 0)]


def _incidence(look: Vector, reference: Vector) -> float:
    """Angle between the line of sight and the ellipsoid's normal at the reference point, deg."""
    to_degrees = Transformer.from_crs("EPSG:4978", "EPSG:4326", always_xy=True)
    degrees = to_degrees.transform(*reference)
    lon, lat = math.radians(degrees[0]), math.radians(degrees[1])
    normal = (math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat))
    return math.degrees(math.acos(-float(np.dot(look, normal)) / float(np.linalg.norm(look))))


def _polarization(collection: Any) -> str | None:
    letters = [
        collection.findtext(f"{{*}}Polarization/{{*}}{end}Polarization") or ""
        for end in ("Tx", "Rcv")
    ]
    name = "".join(letters)
    return name if name in ("HH", "HV", "VH", "VV") else None


def _band(tree: Any) -> str | None:
    limits = [tree.findtext(f".//{{*}}TxFrequencyProc/{{*}}{end}Proc") for end in ("Min", "Max")]
    known = [float(limit) * 1e-9 for limit in limits if limit is not None]
    return band_of(sum(known) / 2) if len(known) == 2 else None
