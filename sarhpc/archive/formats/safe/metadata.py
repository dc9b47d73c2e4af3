"""Annotation of a Sentinel-1 SAFE measurement: acquisition, incidence, calibration, noise.

Layout of the Sentinel-1 Product Specification (S1-RS-MDA-52-7441): `measurement/NAME.tiff`,
`annotation/NAME.xml`, `annotation/calibration/calibration-NAME.xml` and `noise-NAME.xml`. Noise is
read in the present form (range and azimuth vectors) and that of processors before 2.90.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from rasterio.control import GroundControlPoint

from hpc.errors import DataError
from sarhpc.archive.formats.lookup_table import LookupTable, Vector

_MOST_BYTES = 256 << 20
"""Of an annotation, which is read whole; those of whole products have a few megabytes."""
_ENL = {
    ("IW", (5, 1)): 4.4,
    ("IW", (22, 5)): 81.8,
    ("EW", (6, 2)): 10.7,
    ("SM", (2, 2)): 3.7,
    ("SM", (6, 6)): 29.7,
    ("SM", (22, 22)): 398.4,
}
"""Equivalent number of looks of GRD by mode and looks (range, azimuth): ESA, Sentinel-1 User Guide,
"Level-1 Ground Range Detected", Table 1, after the Product Definition, S1-RS-MDA-52-7440."""
_MISSION = {f"S1{letter}": f"sentinel-1{letter.lower()}" for letter in "ABCD"}


@dataclass(frozen=True)
class NoiseBlock:
    """Part of an image with its own noise profile along azimuth (scalloping of a sub-swath)."""

    rows: tuple[int, int]
    """First and last line, inclusive."""
    cols: tuple[int, int]
    lines: Vector
    factors: Vector


@dataclass(frozen=True)
class Noise:
    """Thermal noise in squared digital numbers: a table along range, factors along azimuth."""

    along_range: LookupTable
    blocks: tuple[NoiseBlock, ...]

    def at(self, row: float, col: float) -> float:
        """Noise power at a pixel."""
        level = float(self.along_range.at(np.array([row]), np.array([col]))[0, 0])
        for block in self.blocks:
            inside = block.rows[0] <= row < block.rows[1] + 1
            if inside and block.cols[0] <= col < block.cols[1] + 1:
                return level * float(np.interp(row, block.lines, block.factors))
        return level


@dataclass(frozen=True)
class SafeMetadata:
    """Annotation of one measurement that the archive uses."""

    platform: str
    product_type: str
    mode: str
    polarization: str
    start: str
    """RFC 3339 UTC."""
    orbit: str
    """Mission and absolute orbit, shared by the slices of one pass."""
    centre_ghz: float
    looks: tuple[int, int]
    """Along range and azimuth, as processed; they overlap, so the ENL is slightly lower."""
    mid_incidence_deg: float
    incidence: LookupTable
    amplitude_gain: LookupTable | None
    """sigmaNought: sigma0 = |DN|^2 / gain^2; None without a calibration file."""
    noise: Noise | None
    slant_spacing_m: tuple[float, float] | None = None
    """Spacing of (lines, samples) of an image in slant range."""
    points: tuple[GroundControlPoint, ...] = ()
    """Points of the geolocation grid at pixel corners, degrees."""

    @property
    def equivalent_looks(self) -> float:
        """Equivalent number of looks: overlapping looks are not independent."""
        if self.product_type != "GRD":
            return float(self.looks[0] * self.looks[1])
        mode = "SM" if self.mode.startswith("S") else self.mode
        return _ENL.get((mode, self.looks), float(self.looks[0] * self.looks[1]))

    def at(self, row: float, col: float) -> dict[str, float]:
        """Incidence and noise-equivalent sigma0 at a pixel, as entries of tile metadata."""
        place = np.array([row]), np.array([col])
        found = {"incidence_deg": round(float(self.incidence.at(*place)[0, 0]), 4)}
        if self.noise is not None and self.amplitude_gain is not None:
            level = self.noise.at(row, col) / float(self.amplitude_gain.at(*place)[0, 0]) ** 2
            if level > 0:
                found["noise_floor_db"] = round(10 * float(np.log10(level)), 3)
        return found


def annotation_of(measurement: Path) -> Path | None:
    """The annotation that belongs to a file in `measurement/` of a SAFE; None for other files."""
    path = measurement.parent.parent / "annotation" / f"{measurement.stem}.xml"
    return path if measurement.parent.name == "measurement" and path.is_file() else None


def read_safe(measurement: Path) -> SafeMetadata:
    """The annotation of a measurement.

    Raises:
        DataError: it is missing, or does not follow the specification.
    """
    path = annotation_of(measurement)
    if path is None:
        raise DataError(
            f"{measurement} has no annotation beside it; restore the whole .SAFE folder"
        )
    calibration = path.parent / "calibration" / f"calibration-{path.name}"
    noise = path.parent / "calibration" / f"noise-{path.name}"
    try:
        return _metadata(
            root_of(path),
            _gain(root_of(calibration)) if calibration.is_file() else None,
            _noise(root_of(noise)) if noise.is_file() else None,
        )
    except (ElementTree.ParseError, ValueError, LookupError, ArithmeticError) as error:
        raise DataError(
            f"the annotation {path} or its calibration does not follow the specification "
            f"({error}); restore the whole .SAFE folder, or leave it out"
        ) from error


def root_of(path: Path) -> ElementTree.Element:
    """The root of an annotation.

    Raises:
        DataError: it declares entities, or is too large for an annotation.
        ParseError: it is not XML.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path} is larger than {_MOST_BYTES} bytes: no annotation; leave it out")
    data = path.read_bytes()
    # In UTF-16, which has zero bytes, the words would be missed.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\0" in data:
        raise DataError(
            f"{path} declares XML entities, which are not read; restore the original annotation"
        )
    try:
        return ElementTree.fromstring(data)  # noqa: S314 - entities are refused above
    except LookupError as error:  # an encoding that Python does not know
        raise ElementTree.ParseError(str(error)) from error


def text_of(node: ElementTree.Element, path: str) -> str:
    """The text at `path` below a node.

    Raises:
        KeyError: it is missing or empty.
    """
    found = node.findtext(path)
    if found is None or not found.strip():
        raise KeyError(f"no {path} in <{node.tag}>")
    return found.strip()


def numbers_of(node: ElementTree.Element, path: str) -> Vector:
    """The numbers (n,) at `path` below a node.

    Raises:
        KeyError: they are missing.
        ValueError: the text is not numbers.
    """
    return np.array(text_of(node, path).split(), np.float64)


def _metadata(
    root: ElementTree.Element, gain: LookupTable | None, noise: Noise | None
) -> SafeMetadata:
    mission = text_of(root, "adsHeader/missionId")
    start = text_of(root, "adsHeader/startTime")
    processed = root.find(
        "imageAnnotation/processingInformation/swathProcParamsList/swathProcParams"
    )
    if processed is None:
        raise KeyError("no swathProcParams")
    looks = [int(text_of(processed, f"{axis}Processing/numberOfLooks")) for axis in
             ("range", "azimuth")]  # fmt: skip
    return SafeMetadata(
        platform=_MISSION.get(mission, mission.lower()),
        product_type=text_of(root, "adsHeader/productType"),
        mode=text_of(root, "adsHeader/mode"),
        polarization=text_of(root, "adsHeader/polarisation"),
        start=start if start.endswith("Z") else f"{start}Z",
        orbit=f"{mission}-{int(text_of(root, 'adsHeader/absoluteOrbitNumber'))}",
        centre_ghz=round(
            float(text_of(root, "generalAnnotation/productInformation/radarFrequency")) / 1e9, 6
        ),
        looks=(looks[0], looks[1]),
        mid_incidence_deg=float(
            text_of(root, "imageAnnotation/imageInformation/incidenceAngleMidSwath")
        ),
        incidence=_incidence(root),
        amplitude_gain=gain,
        noise=noise,
        points=_points(root),
        slant_spacing_m=_slant_spacing(root),
    )


def _slant_spacing(root: ElementTree.Element) -> tuple[float, float] | None:
    image = "imageAnnotation/imageInformation"
    steps = [root.findtext(f"{image}/{axis}PixelSpacing") for axis in ("azimuth", "range")]
    if text_of(root, "adsHeader/productType") != "SLC" or None in steps:
        return None
    return float(steps[0] or 0), float(steps[1] or 0)


def _points(root: ElementTree.Element) -> tuple[GroundControlPoint, ...]:
    nodes = root.iterfind("geolocationGrid/geolocationGridPointList/geolocationGridPoint")
    points = []
    for node in nodes:
        line, pixel, lon, lat = (
            float(text_of(node, name)) for name in ("line", "pixel", "longitude", "latitude")
        )
        # The grid refers to pixel centres, half a pixel from their corners.
        points.append(GroundControlPoint(line + 0.5, pixel + 0.5, lon, lat))
    return tuple(points)


def _incidence(root: ElementTree.Element) -> LookupTable:
    rows: dict[float, list[tuple[float, float]]] = {}
    for point in root.iterfind("geolocationGrid/geolocationGridPointList/geolocationGridPoint"):
        row = rows.setdefault(float(text_of(point, "line")), [])
        row.append((float(text_of(point, "pixel")), float(text_of(point, "incidenceAngle"))))
    vectors = [np.array(sorted(row)).T for _, row in sorted(rows.items())]
    return _table(sorted(rows), [v[0] for v in vectors], [v[1] for v in vectors])


def _gain(root: ElementTree.Element) -> LookupTable:
    table = _vectors(root.findall("calibrationVectorList/calibrationVector"), "sigmaNought")
    if any((values <= 0).any() for values in table.values):
        raise ValueError("sigmaNought that is not positive")
    return table


def _noise(root: ElementTree.Element) -> Noise | None:
    vectors, name = root.findall("noiseRangeVectorList/noiseRangeVector"), "noiseRangeLut"
    if not vectors:
        vectors, name = root.findall("noiseVectorList/noiseVector"), "noiseLut"
    if not vectors:
        return None
    blocks = root.findall("noiseAzimuthVectorList/noiseAzimuthVector")
    return Noise(_vectors(vectors, name), tuple(_block(b) for b in blocks if _is_whole(b)))


def _is_whole(block: ElementTree.Element) -> bool:
    return bool((block.findtext("noiseAzimuthLut") or "").strip())


def _block(node: ElementTree.Element) -> NoiseBlock:
    lines, factors = numbers_of(node, "line"), numbers_of(node, "noiseAzimuthLut")
    if lines.shape != factors.shape or not np.isfinite([lines, factors]).all():
        raise ValueError("a noiseAzimuthLut that does not match its lines")
    # Scalloping of SLC is annotated without bounds where it applies to the whole image.
    first, last = node.findtext("firstAzimuthLine"), node.findtext("lastAzimuthLine")
    left, right = node.findtext("firstRangeSample"), node.findtext("lastRangeSample")
    return NoiseBlock(
        (int(first or lines[0]), int(last or lines[-1])),
        (int(left or 0), int(right or 1 << 30)),
        lines,
        factors,
    )


def _vectors(nodes: Sequence[ElementTree.Element], name: str) -> LookupTable:
    ordered = sorted(nodes, key=lambda node: float(text_of(node, "line")))
    return _table(
        [float(text_of(node, "line")) for node in ordered],
        [numbers_of(node, "pixel") for node in ordered],
        [numbers_of(node, name) for node in ordered],
    )


def _table(
    lines: Sequence[float], pixels: Sequence[Vector], values: Sequence[Vector]
) -> LookupTable:
    if not lines or not np.isfinite(lines).all():
        raise ValueError("a table without vectors, or of vectors on no line")
    for row, value in zip(pixels, values, strict=True):
        if row.shape != value.shape or (np.diff(row) <= 0).any():
            raise ValueError("a vector whose pixels and values do not match")
        if not np.isfinite(value).all():
            raise ValueError("a vector with values that are not finite")
    return LookupTable(np.array(lines, np.float64), tuple(pixels), tuple(values))
