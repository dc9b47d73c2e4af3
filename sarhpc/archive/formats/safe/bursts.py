"""Bursts of a Sentinel-1 SLC in TOPS mode: lines, time and phase ramp.

During a burst the antenna is steered, so the azimuth spectrum shifts by several times the line
frequency and is not band-limited. Deramping follows "Definition of the TOPS SLC deramping
function" (ESA COPE-GSEG-EOPG-TN-14-0025, 2015), by the rates and centroids of the annotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint

from hpc.errors import DataError
from sarhpc.archive.formats.lookup_table import Vector
from sarhpc.archive.formats.safe.metadata import annotation_of, numbers_of, root_of, text_of
from sarhpc.archive.pixel_window import Range

LIGHT_M_S = 299_792_458.0

_REACH = 2.0
"""Bursts before and after a burst whose grid points are used to place it."""

_LAYER = "burst-"


@dataclass(frozen=True)
class RangePolynomial:
    """A quantity along slant range, as annotated for one azimuth time."""

    at_s: float
    """Azimuth time, s after the first burst began."""
    t0: float
    """Two-way slant range time of the origin, s."""
    coefficients: Vector

    def of(self, tau: Vector) -> Vector:
        """Values at two-way slant range times (W,), s."""
        return np.asarray(np.polynomial.polynomial.polyval(tau - self.t0, self.coefficients))


@dataclass(frozen=True)
class Ramp:
    """The phase ramp that antenna steering causes in a burst."""

    line_s: float
    """Azimuth time between lines, s."""
    middle_s: float
    """Azimuth time from the first line to the middle of the burst, s."""
    near_s: float
    """Two-way slant range time of column 0, s."""
    sample_s: float
    """Two-way slant range time between columns, s."""
    steering_hz_s: float
    """Doppler centroid rate due to antenna steering alone, Hz/s."""
    rate: RangePolynomial
    """Doppler rate of a target, Hz/s (negative)."""
    centroid: RangePolynomial
    """Doppler centroid in the middle of the burst, Hz."""

    def sweep_hz_s(self, cols: Vector) -> Vector:
        """Doppler centroid rate (W,) along azimuth in the focused burst, Hz/s."""
        rate = self.rate.of(self.near_s + cols * self.sample_s)
        return np.asarray(rate * self.steering_hz_s / (rate - self.steering_hz_s))

    def deramp(self, rows: Range, cols: Range, samples: int) -> NDArray[np.complex64]:
        """Phase factors (H, W) that deramp and demodulate the burst.

        Args:
            rows: lines of the burst.
            cols: columns.
            samples: columns of the whole burst; the reference time is taken at its middle.
        """
        col = np.arange(*cols, dtype=np.float64)
        centroid, crossing = self._crossing(col)
        reference = crossing - self._crossing(np.array([samples / 2]))[1]
        eta = np.arange(*rows)[:, None] * self.line_s - self.middle_s - reference
        turns = self.sweep_hz_s(col) / 2 * eta**2 + centroid * eta
        # Thousands of whole cycles are removed in double precision.
        return np.exp(-2j * np.pi * (turns - np.rint(turns))).astype(np.complex64)

    def _crossing(self, cols: Vector) -> tuple[Vector, Vector]:
        """Doppler centroid (W,), Hz, and beam centre crossing time, s."""
        tau = self.near_s + cols * self.sample_s
        centroid = self.centroid.of(tau)
        return centroid, -centroid / self.rate.of(tau)


@dataclass(frozen=True)
class Burst:
    """One burst of a measurement."""

    number: int
    """Counted from 1."""
    start: str
    """Azimuth time of its first line, RFC 3339 UTC."""
    first_line: int
    """Its first line among those of the measurement."""
    shape: tuple[int, int]
    valid: NDArray[np.int64]
    """First and last valid column (lines, 2) of each line, -1 for none."""
    ramp: Ramp
    points: tuple[GroundControlPoint, ...]
    """Points of the geolocation grid in pixel corners of the burst, by azimuth time: lines before
    and after it are outside its image."""

    def covers(self, rows: Range, cols: Range) -> NDArray[np.bool_]:
        """Mask (H, W) of the pixels that the annotation marks as valid."""
        first, last = self.valid[slice(*rows)].T[:, :, None]
        col = np.arange(*cols)
        return np.asarray((first >= 0) & (col >= first) & (col <= last))


def burst_layers(path: Path) -> tuple[str, ...]:
    """Names of the bursts of a measurement, in order; none for any other file.

    Raises:
        DataError: the annotation is damaged.
    """
    annotation = annotation_of(path)
    if annotation is None:
        return ()
    try:
        count = len(root_of(annotation).findall("swathTiming/burstList/burst"))
    except ElementTree.ParseError as error:
        raise _damaged(annotation, error) from error
    return tuple(f"{_LAYER}{number:02d}" for number in range(1, count + 1))


def read_burst(path: Path, layer: str) -> Burst:
    """A burst of the measurement at `path` by its name.

    Raises:
        DataError: the measurement has no such burst, or its annotation is invalid.
    """
    annotation = annotation_of(path)
    if annotation is None or layer not in burst_layers(path):
        raise DataError(f"{path} has no {layer}; catalogue the folder again")
    try:
        return _burst(root_of(annotation), int(layer.removeprefix(_LAYER)))
    except (ElementTree.ParseError, ValueError, LookupError, ArithmeticError) as error:
        raise _damaged(annotation, error) from error


def _damaged(annotation: Path, error: Exception) -> DataError:
    return DataError(
        f"the bursts in {annotation} do not follow the specification ({error}); restore the "
        "whole .SAFE folder, or leave it out"
    )


def _burst(root: ElementTree.Element, number: int) -> Burst:
    timing = "swathTiming"
    lines, samples = (int(text_of(root, f"{timing}/{axis}PerBurst")) for axis in
                      ("lines", "samples"))  # fmt: skip
    nodes = root.findall(f"{timing}/burstList/burst")
    began, own = (_time(nodes[index], "azimuthTime") for index in (0, number - 1))
    node = nodes[number - 1]
    valid = np.stack(
        [numbers_of(node, f"{end}ValidSample").astype(np.int64) for end in ("first", "last")],
        axis=1,
    )
    if valid.shape != (lines, 2):
        raise ValueError(f"{len(valid)} lines with valid samples in a burst of {lines}")
    start_s = (own - began).total_seconds()
    line_s = float(text_of(root, "imageAnnotation/imageInformation/azimuthTimeInterval"))
    return Burst(
        number=number,
        start=own.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        first_line=(number - 1) * lines,
        shape=(lines, samples),
        valid=valid,
        ramp=_ramp(root, began, start_s, line_s, lines),
        points=_points(root, own, line_s, lines),
    )


def _ramp(
    root: ElementTree.Element, began: datetime, start_s: float, line_s: float, lines: int
) -> Ramp:
    product = "generalAnnotation/productInformation"
    middle_s = lines * line_s / 2
    at_s = start_s + middle_s
    steering = np.radians(float(text_of(root, f"{product}/azimuthSteeringRate")))
    wave = float(text_of(root, f"{product}/radarFrequency")) / LIGHT_M_S
    rates = root.findall("generalAnnotation/azimuthFmRateList/azimuthFmRate")
    centroids = root.findall("dopplerCentroid/dcEstimateList/dcEstimate")
    return Ramp(
        line_s=line_s,
        middle_s=middle_s,
        near_s=float(text_of(root, "imageAnnotation/imageInformation/slantRangeTime")),
        sample_s=1 / float(text_of(root, f"{product}/rangeSamplingRate")),
        steering_hz_s=2 * _speed_m_s(root, began, at_s) * wave * float(steering),
        rate=_nearest([_rate(node, began) for node in rates], at_s),
        centroid=_nearest(
            [_polynomial(node, began, "dataDcPolynomial") for node in centroids], at_s
        ),
    )


def _rate(node: ElementTree.Element, began: datetime) -> RangePolynomial:
    if node.find("azimuthFmRatePolynomial") is not None:
        return _polynomial(node, began, "azimuthFmRatePolynomial")
    # Notation of processors before 2.43.
    terms = np.array([float(text_of(node, name)) for name in ("c0", "c1", "c2")])
    return RangePolynomial(_after(node, began), float(text_of(node, "t0")), terms)


def _polynomial(node: ElementTree.Element, began: datetime, name: str) -> RangePolynomial:
    terms = numbers_of(node, name)
    return RangePolynomial(_after(node, began), float(text_of(node, "t0")), terms)


def _nearest(polynomials: list[RangePolynomial], at_s: float) -> RangePolynomial:
    if not polynomials:
        raise KeyError("no azimuthFmRate, or no dcEstimate")
    return min(polynomials, key=lambda each: abs(each.at_s - at_s))


def _speed_m_s(root: ElementTree.Element, began: datetime, at_s: float) -> float:
    """Earth-fixed platform speed, m/s, at a time after the start of the first burst."""
    nodes = root.findall("generalAnnotation/orbitList/orbit")
    if not nodes:
        raise KeyError("no orbit")
    velocities = [[float(text_of(n, f"velocity/{axis}")) for axis in "xyz"] for n in nodes]
    times = [_after(node, began, "time") for node in nodes]
    return float(np.interp(at_s, times, np.linalg.norm(velocities, axis=1)))


def _points(
    root: ElementTree.Element, own: datetime, line_s: float, lines: int
) -> tuple[GroundControlPoint, ...]:
    points = []
    for node in root.iterfind("geolocationGrid/geolocationGridPointList/geolocationGridPoint"):
        # Bursts overlap in time, so points of the next one are placed in this one by azimuth time.
        line = _after(node, own) / line_s
        if -_REACH * lines <= line <= (1 + _REACH) * lines:
            lon, lat = (float(text_of(node, f"{name}itude")) for name in ("long", "lat"))
            # The grid refers to pixel centres, half a pixel from their corners.
            points.append(
                GroundControlPoint(line + 0.5, float(text_of(node, "pixel")) + 0.5, lon, lat)
            )
    return tuple(points)


def _after(node: ElementTree.Element, began: datetime, name: str = "azimuthTime") -> float:
    return (_time(node, name) - began).total_seconds()


def _time(node: ElementTree.Element, name: str) -> datetime:
    return datetime.fromisoformat(text_of(node, name)).replace(tzinfo=UTC)
