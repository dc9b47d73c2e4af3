"""Affine algebra, and the exact rotations that bring near range to column 0.

An affine is (a, b, c, d, e, f): x = a*col + b*row + c, y = d*col + e*row + f; it maps pixel
corners, so that pixel (row, col) covers [col, col + 1] x [row, row + 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.scene import RangeDirection

Affine = tuple[float, float, float, float, float, float]
Interval = tuple[int, int]
"""Half-open range of pixels along one axis."""

Scalar = TypeVar("Scalar", bound=np.generic)


def compose(outer: Affine, inner: Affine) -> Affine:
    """The affine that applies `inner` first and `outer` to its result."""
    a, b, c, d, e, f = outer
    g, h, i, j, k, m = inner
    return (
        a * g + b * j,
        a * h + b * k,
        a * i + b * m + c,
        d * g + e * j,
        d * h + e * k,
        d * i + e * m + f,
    )


def inverse(affine: Affine) -> Affine:
    """The inverse of `affine`.

    Raises:
        ZeroDivisionError: the affine maps the plane to a line.
    """
    a, b, c, d, e, f = affine
    det = determinant(affine)
    return (e / det, -b / det, (b * f - c * e) / det, -d / det, a / det, (c * d - a * f) / det)


def determinant(affine: Affine) -> float:
    """Signed area of a pixel; negative for an ordinary north-up image, positive when mirrored."""
    a, b, _, d, e, _ = affine
    return a * e - b * d


def transform(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates (..., 2) as (x, y) of the pixel positions (..., 2) given as (col, row)."""
    a, b, c, d, e, f = affine
    col, row = points[..., 0], points[..., 1]
    return np.stack([a * col + b * row + c, d * col + e * row + f], axis=-1)


@dataclass(frozen=True)
class Orientation:
    """An exact rotation of the image: transpose, then flips. No pixel value changes."""

    transpose: bool = False
    flip_rows: bool = False
    flip_cols: bool = False

    def apply(self, image: NDArray[Scalar]) -> NDArray[Scalar]:
        """A view of the native `image` (H, W) in the canonical frame."""
        turned = image.T if self.transpose else image
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_cols else 1]

    def shape(self, native: tuple[int, int]) -> tuple[int, int]:
        """Canonical (rows, cols) of an image whose native shape is given."""
        return (native[1], native[0]) if self.transpose else native

    def pair(self, native: tuple[Any, Any]) -> tuple[Any, Any]:
        """A (row, col) property such as spacing, in the order of the canonical axes."""
        return (native[1], native[0]) if self.transpose else native

    def native_affine(self, native: tuple[int, int]) -> Affine:
        """Affine from canonical to native pixel positions of an image of shape `native`."""
        rows, cols = self.shape(native)
        row = (-1.0, float(rows)) if self.flip_rows else (1.0, 0.0)
        col = (-1.0, float(cols)) if self.flip_cols else (1.0, 0.0)
        if self.transpose:
            return (0.0, row[0], row[1], col[0], 0.0, col[1])
        return (col[0], 0.0, col[1], 0.0, row[0], row[1])

    def native_window(
        self, rows: Interval, cols: Interval, native: tuple[int, int]
    ) -> tuple[Interval, Interval]:
        """Native (rows, cols) that hold the canonical window (rows, cols)."""
        height, width = self.shape(native)
        if self.flip_rows:
            rows = (height - rows[1], height - rows[0])
        if self.flip_cols:
            cols = (width - cols[1], width - cols[0])
        return (cols, rows) if self.transpose else (rows, cols)


# Only rotations: a half or quarter turn keeps the handedness of the ground, a single flip would
# mirror it. A scene that is stored mirrored stays so, as the determinant of its affine shows.
_TURNS: dict[RangeDirection, Orientation] = {
    "+col": Orientation(),
    "-col": Orientation(flip_rows=True, flip_cols=True),
    "+row": Orientation(transpose=True, flip_rows=True),
    "-row": Orientation(transpose=True, flip_cols=True),
}


def canonical_orientation(range_direction: RangeDirection) -> Orientation:
    """The rotation after which slant range grows with columns."""
    return _TURNS[range_direction]
