"""Ground geometry of a SICD image grid: how its axes lie on the ground, and at what angle.

A pixel of the slant plane images the ground point at the same range and Doppler, which lies along
the normal of the plane through SCP and track (SICD Volume 3, image projections). Seen so from
above, the axes of an image that was taken with squint or twist are not perpendicular: 15 degrees of
twist at 45 degrees of grazing make them 105 degrees, and pixels a parallelogram.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.archive.pixel_window import Range

Vector = NDArray[np.float64]

SKEW_KEPT_DEG = 1.0
"""Deviation of the axes from a right angle up to which the grid is taken as it is; area is then off
by less than 0.02 %."""
_MOST_SKEW_DEG = 60.0
_HALF_TAPS = 12
_KAISER_BETA = 6.0
_STRIP = 1024


@dataclass(frozen=True)
class GroundAxes:
    """Row and column axes of an image on the ground."""

    row: float
    """Metres on the ground per metre of the image plane along rows."""
    col: float
    """The same along columns."""
    angle_deg: float
    """Angle between them, seen from above."""

    @property
    def skew_deg(self) -> float:
        """Deviation from a right angle."""
        return self.angle_deg - 90.0


def ground_axes(row: Vector, col: Vector, up: Vector) -> GroundAxes | None:
    """The axes of an image plane on the ground; None where they span none.

    Args:
        row: unit vector (3,) of increasing rows.
        col: unit vector (3,) of increasing columns.
        up: unit vector (3,) of the vertical at the scene centre.
    """
    normal = np.cross(row, col)
    if not abs(normal @ up) > 1e-3 or not np.isfinite(normal).all():
        return None
    on_ground = [axis - normal * (axis @ up) / (normal @ up) for axis in (row, col)]
    lengths = [float(np.linalg.norm(axis)) for axis in on_ground]
    if min(lengths) < 1e-3:
        return None
    cosine = float(on_ground[0] @ on_ground[1]) / (lengths[0] * lengths[1])
    return GroundAxes(lengths[0], lengths[1], math.degrees(math.acos(max(-1, min(1, cosine)))))


def vertical(latitude_deg: float, longitude_deg: float) -> Vector:
    """Unit vector (3,), Earth-fixed, along the ellipsoid's normal."""
    lat, lon = math.radians(latitude_deg), math.radians(longitude_deg)
    return np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])


@dataclass(frozen=True)
class Rectification:
    """The shear along rows that makes the axes of an image perpendicular on the ground.

    Every column is shifted along range by a share of its number, with a band-limited kernel, so
    that complex pixels keep their spectrum and speckle its statistics.
    """

    native: tuple[int, int]
    """Shape of the image as stored."""
    shear: float
    """Rows by which a column lies farther along rows than its neighbour."""
    spacing_m: tuple[float, float]
    """Ground spacing (row, col) afterwards."""

    @classmethod
    def of(
        cls, axes: GroundAxes, spacing_m: tuple[float, float], shape: tuple[int, int], where: str
    ) -> Rectification | None:
        """What rectifies a grid of image-plane spacing (row, col); None if it needs nothing.

        Raises:
            DataError: the axes are too far from perpendicular.
        """
        if abs(axes.skew_deg) <= SKEW_KEPT_DEG:
            return None
        if abs(axes.skew_deg) > _MOST_SKEW_DEG:
            raise DataError(
                f"{where}: rows and columns are {axes.angle_deg:.1f} degrees apart on the ground, "
                "which is no image that can be rectified; leave it out"
            )
        angle = math.radians(axes.angle_deg)
        row, col = axes.row * spacing_m[0], axes.col * spacing_m[1]
        return cls(shape, col * math.cos(angle) / row, (row, col * math.sin(angle)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the rectified image, which holds all of the stored one."""
        rows, cols = self.native
        return rows + math.ceil(abs(self.shear) * (cols - 1)), cols

    def native_row(self, row: Any, col: Any) -> Any:
        """Stored row of a rectified position, both at pixel centres."""
        return row - self.shear * col + min(self.shear * (self.native[1] - 1), 0.0)

    def rows_needed(self, rows: Range, cols: Range) -> Range:
        """Stored rows, inside the image, that a rectified window depends on; maybe none."""
        ends = [self.native_row(float(row), float(col)) for row in (rows[0], rows[1] - 1)
                for col in (cols[0], cols[1] - 1)]  # fmt: skip
        first = max(math.floor(min(ends)) - _HALF_TAPS, 0)
        last = min(math.ceil(max(ends)) + _HALF_TAPS + 1, self.native[0])
        return min(first, self.native[0]), max(last, min(first, self.native[0]))

    def apply(
        self,
        pixels: NDArray[np.complex64],
        valid: NDArray[np.bool_],
        first_row: int,
        rows: Range,
        cols: Range,
    ) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Rectified pixels and validity (H, W) of a window, from the stored rows it needs.

        Args:
            pixels: stored rows of these columns, zero where not valid.
            valid: their validity.
            first_row: number of the first of them.
            rows: rectified rows.
            cols: columns, the same in both images.
        """
        height, width = rows[1] - rows[0], cols[1] - cols[0]
        made = np.zeros((height, width), np.complex64)
        seen = np.zeros((height, width), np.bool_)
        if pixels.shape[0] == 0:
            return made, seen
        shift = self.native_row(np.zeros(width), np.arange(*cols, dtype=np.float64))
        whole = np.floor(shift).astype(np.intp)
        taps = _taps(shift - whole)
        column = np.arange(width)
        padded = np.pad(pixels, ((2 * _HALF_TAPS, 2 * _HALF_TAPS), (0, 0)))
        known = np.pad(valid, ((2 * _HALF_TAPS, 2 * _HALF_TAPS), (0, 0)))
        for start in range(0, height, _STRIP):
            stop = min(start + _STRIP, height)
            base = np.arange(rows[0] + start, rows[0] + stop)[:, None] + whole - first_row
            base += 2 * _HALF_TAPS
            for tap in range(2 * _HALF_TAPS):
                at = np.clip(base + tap - _HALF_TAPS + 1, 0, padded.shape[0] - 1)
                made[start:stop] += padded[at, column] * taps[tap]
            nearest = np.clip(base + (shift - whole >= 0.5), 0, padded.shape[0] - 1)
            seen[start:stop] = known[nearest, column]
        made[~seen] = 0
        return made, seen


def _taps(fraction: Vector) -> NDArray[np.float32]:
    """Weights (2 * _HALF_TAPS, W) of the samples around positions between two of them."""
    offset = np.arange(1 - _HALF_TAPS, _HALF_TAPS + 1)[:, None] - fraction
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(1 - (offset / _HALF_TAPS) ** 2, 0)))
    weight = np.sinc(offset) * window / np.i0(_KAISER_BETA)
    return np.asarray(weight / weight.sum(axis=0), np.float32)
