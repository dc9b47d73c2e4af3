"""Writer of SIDD 3.0 for detected images without a collection: its geometry is declared.

A SIDD must state the corners of the image on Earth, the track of the sensor and the time. A
generated image has none of them, and none is assumed: whoever exports declares all of them, and the
file says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import cos, inf, radians, sin
from typing import IO, Any

import lxml.etree
import numpy as np
import sarkit.sidd
import sarkit.wgs84
from numpy.typing import NDArray

Vector = NDArray[np.float64]

NAMESPACE = "urn:SIDD:3.0.0"
NOTE = "Synthetic image of a generative model; place, time and sensor were declared for the export"

MODES = ("SPOTLIGHT", "STRIPMAP", "DYNAMIC STRIPMAP", "SCANSAR")


@dataclass(frozen=True)
class CollectionDeclaration:
    """The place and collection that a file of SIDD is to state."""

    lat_deg: float
    """Latitude of the middle of the image, WGS 84."""
    lon_deg: float
    """Longitude of it."""
    height_m: float
    """Height of it above the ellipsoid."""
    heading_deg: float
    """Direction of flight, clockwise from north."""
    incidence_deg: float
    """Angle of incidence at the middle of the image."""
    range_m: float
    """Slant range to it."""
    speed_m_s: float
    """Speed of the sensor."""
    duration_s: float
    """Duration of the collection."""
    time: str
    """Start of the collection, ISO 8601 in UTC, such as 2026-01-31T12:00:00Z."""
    sensor: str
    """Name of the sensor."""
    mode: str
    """SPOTLIGHT, STRIPMAP, DYNAMIC STRIPMAP or SCANSAR."""
    resolution_m: float
    """Resolution on the ground, along rows and columns."""
    look_side: str = "right"
    """Side to which the sensor looks, `right` or `left`."""

    def __post_init__(self) -> None:
        """Refuse what no collection can have.

        Raises:
            ValueError: a value is out of its range; the message names it.
        """
        ranges = (("lat_deg", -90, 90), ("lon_deg", -180, 180), ("incidence_deg", 1, 89))
        for name, low, high in ranges:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, not {low} to {high}")
        for name in ("range_m", "speed_m_s", "duration_s", "resolution_m"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}: must be > 0")
        for name, choices in (("mode", MODES), ("look_side", ("right", "left"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}: one of {', '.join(choices)}")
        if datetime.fromisoformat(self.time).utcoffset() is None:
            raise ValueError(f"time is {self.time!r}, without a zone: end it with Z")


@dataclass(frozen=True)
class DeclaredPlane:
    """The ground plane of an image whose range grows with columns."""

    centre: Vector
    """Earth-centred position (3,) of the middle of the image, m."""
    row: Vector
    """Unit vector (3,) of growing rows."""
    col: Vector
    """Unit vector (3,) of growing columns, away from the sensor."""
    sensor: Vector
    """Position (3,) of the sensor when it looks at the middle, m."""
    velocity: Vector
    """Its velocity (3,), m/s."""


def declared_plane(declared: CollectionDeclaration) -> DeclaredPlane:
    """The plane tangent to the ellipsoid at the declared place, and the sensor beside it."""
    place = np.array([declared.lat_deg, declared.lon_deg, declared.height_m])
    centre = sarkit.wgs84.geodetic_to_cartesian(place)
    east, north, up = (np.asarray(unit(place), float) for unit in (
        sarkit.wgs84.east, sarkit.wgs84.north, sarkit.wgs84.up))  # fmt: skip
    heading = radians(declared.heading_deg)
    along = sin(heading) * east + cos(heading) * north
    right = cos(heading) * east - sin(heading) * north
    side = 1.0 if declared.look_side == "right" else -1.0
    away = side * right
    incidence = radians(declared.incidence_deg)
    sensor = centre + declared.range_m * (cos(incidence) * up - sin(incidence) * away)
    # Seen from above, rows run against the flight where the sensor looks to its right.
    return DeclaredPlane(centre, -side * along, away, sensor, declared.speed_m_s * along)


def write_sidd(
    file: IO[bytes],
    pixels: NDArray[np.uint8],
    spacing_m: tuple[float, float],
    declared: CollectionDeclaration,
    name: str,
    polarization: str | None = None,
) -> None:
    """Write pixels (H, W) to an open, empty file as SIDD, MONO8I, on the ground plane.

    Equal arguments give equal bytes.

    Args:
        file: of the file system, for numpy writes to it.
        pixels: the picture; near range at column 0.
        spacing_m: of rows and of columns on the ground.
        declared: place and collection.
        name: of the product.
        polarization: such as HH, if it is known.
    """
    tree = _document(pixels.shape, spacing_m, declared, name, polarization)
    security = {"security": {"clas": "U"}}
    metadata = sarkit.sidd.NitfMetadata(
        file_header_part={"ostaid": "sarhpc", "ftitle": "SYNTHETIC IMAGE", **security},
        images=[
            sarkit.sidd.NitfProductImageMetadata(
                xmltree=tree,
                im_subheader_part={**security, "iid2": name[:80]},
                de_subheader_part=security,
            )
        ],
    )
    nitf = sarkit.sidd.jbp_from_nitf_metadata(metadata)
    # The times of writing would make equal images unequal files.
    time = datetime.fromisoformat(declared.time)
    for segment in nitf["DataExtensionSegments"]:
        segment["subheader"]["DESSHDT"].value = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    with sarkit.sidd.NitfWriter(file, metadata, jbp_override=nitf) as writer:
        writer.write_image(0, pixels)
    file.seek(nitf["FileHeader"]["FDT"].get_offset())
    file.write(time.strftime("%Y%m%d%H%M%S").encode())


def _document(
    shape: tuple[int, ...],
    spacing_m: tuple[float, float],
    declared: CollectionDeclaration,
    name: str,
    polarization: str | None,
) -> lxml.etree._ElementTree:
    root = lxml.etree.Element(f"{{{NAMESPACE}}}SIDD", nsmap={
        None: NAMESPACE, "si": "urn:SICommon:1.0", "ism": "urn:us:gov:ic:ism"})  # fmt: skip
    plane = declared_plane(declared)
    sarkit.sidd.ElementWrapper(root).from_dict(
        {
            "ProductCreation": _product(declared, name),
            "Display": _display(),
            "GeoData": _corners(shape, spacing_m, plane),
            "Measurement": _measurement(shape, spacing_m, plane, declared),
            "ExploitationFeatures": _collection(declared, name, polarization),
        }
    )
    return root.getroottree()


def _product(declared: CollectionDeclaration, name: str) -> dict[str, Any]:
    time = datetime.fromisoformat(declared.time)
    return {
        "ProcessorInformation": {
            "Application": "sarhpc",
            "ProcessingDateTime": time,
            "Site": NOTE,
        },
        "Classification": {
            "@DESVersion": "13",
            "@ISMCATCESVersion": "201903",
            "@compliesWith": "USGov",
            "@resourceElement": "true",
            "@createDate": f"{time:%Y-%m-%d}",
            "@classification": "U",
            "@ownerProducer": "USA",
        },
        "ProductName": f"SYNTHETIC {name}",
        "ProductClass": "Synthetic Image",
    }


def _display() -> dict[str, Any]:
    """Pixels as they are: no remap beyond what made them, no filter, no adjustment."""
    nearest = {
        "FilterName": "none",
        "FilterKernel": {"Predefined": {"DatabaseName": "NEAREST NEIGHBOR"}},
        "Operation": "CONVOLUTION",
    }
    interpolation = {**nearest, "Operation": "CORRELATION"}
    return {
        "PixelType": "MONO8I",
        "NumBands": 1,
        "NonInteractiveProcessing": [
            {
                "@band": "1",
                "ProductGenerationOptions": {
                    "DataRemapping": {
                        "LUTName": "none",
                        "Predefined": {"RemapFamily": 0, "RemapMember": 0},
                    }
                },
                "RRDS": {"DownsamplingMethod": "AVERAGE"},
            }
        ],
        "InteractiveProcessing": [
            {
                "@band": "1",
                "GeometricTransform": {
                    "Scaling": {"AntiAlias": nearest, "Interpolation": interpolation},
                    "Orientation": {"ShadowDirection": "RIGHT"},
                },
                "SharpnessEnhancement": {"ModularTransferFunctionCompensation": nearest},
                "DynamicRangeAdjustment": {"AlgorithmType": "NONE", "BandStatsSource": 1},
            }
        ],
    }


def _corners(
    shape: tuple[int, ...], spacing_m: tuple[float, float], plane: DeclaredPlane
) -> dict[str, Any]:
    """Corners of the image: latitude and longitude (4, 2) of the middles of the corner pixels."""
    last = np.array([shape[0] - 1, shape[1] - 1])
    pixels = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * last - last / 2
    axes = np.stack([plane.row * spacing_m[0], plane.col * spacing_m[1]])
    places = [sarkit.wgs84.cartesian_to_geodetic(plane.centre + p @ axes) for p in pixels]
    corners = np.array(places)[:, :2]
    return {"EarthModel": "WGS_84", "ImageCorners": corners, "ValidData": corners}


def _measurement(
    shape: tuple[int, ...],
    spacing_m: tuple[float, float],
    plane: DeclaredPlane,
    declared: CollectionDeclaration,
) -> dict[str, Any]:
    middle = declared.duration_s / 2
    return {
        "PlaneProjection": {
            "ReferencePoint": {
                "ECEF": plane.centre,
                "Point": [(shape[0] - 1) / 2, (shape[1] - 1) / 2],
            },
            "SampleSpacing": list(spacing_m),
            "TimeCOAPoly": np.array([[middle]]),
            "ProductPlane": {"RowUnitVector": plane.row, "ColUnitVector": plane.col},
        },
        "PixelFootprint": list(shape),
        "ARPPoly": np.stack([plane.sensor - plane.velocity * middle, plane.velocity]),
        "ValidData": _outline(shape),
    }


def _outline(shape: tuple[int, ...]) -> NDArray[np.int64]:
    rows, cols = shape[0] - 1, shape[1] - 1
    return np.array([[0, 0], [0, cols], [rows, cols], [rows, 0]])


def _collection(
    declared: CollectionDeclaration, name: str, polarization: str | None
) -> dict[str, Any]:
    known = polarization is not None and len(polarization) == 2
    sent, received = tuple(polarization) if polarization and known else ("UNKNOWN", "UNKNOWN")
    received_as = {"TxPolarization": sent, "RcvPolarization": received}
    return {
        "Collection": [
            {
                "@identifier": f"SYNTHETIC {name}",
                "Information": {
                    "SensorName": declared.sensor,
                    "RadarMode": {"ModeType": declared.mode},
                    "CollectionDateTime": datetime.fromisoformat(declared.time),
                    "CollectionDuration": declared.duration_s,
                    **({"Polarization": [received_as]} if known else {}),
                },
            }
        ],
        "Product": [
            {
                "Resolution": [declared.resolution_m, declared.resolution_m],
                "Ellipticity": 1.0,
                "Polarization": [{"TxPolarizationProc": sent, "RcvPolarizationProc": received}],
            }
        ],
    }
