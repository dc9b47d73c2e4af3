"""Look-up tables of product annotations: values on lines and columns of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class LookupTable:
    """Values along columns at some lines of an image, linear in between and constant beyond."""

    lines: Vector
    """(V,), growing; the first may lie before the image."""
    pixels: tuple[Vector, ...]
    values: tuple[Vector, ...]

    def at(self, rows: Vector, cols: Vector) -> Vector:
        """Values (H, W) at rows (H,) and columns (W,), which grow."""
        first = max(int(np.searchsorted(self.lines, rows[0], "right")) - 1, 0)
        last = min(int(np.searchsorted(self.lines, rows[-1])), len(self.lines) - 1)
        last = max(first, last)
        curves = np.stack(
            [np.interp(cols, self.pixels[i], self.values[i]) for i in range(first, last + 1)]
        )
        if len(curves) == 1:
            return np.broadcast_to(curves, (len(rows), len(cols)))
        place = np.interp(rows, self.lines[first : last + 1], np.arange(len(curves)))
        low = np.minimum(place.astype(np.int64), len(curves) - 2)
        share = (place - low)[:, None]
        return np.asarray(curves[low] * (1 - share) + curves[low + 1] * share, np.float64)
