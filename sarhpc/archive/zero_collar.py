"""The collar of zeros around a scene: those connected to the image edge along a row or column.

Zeros inside a scene are radar shadow or calm water, and valid. Zeros from the image edge along a
row or column up to the first other value are the collar around a rotated scene. First and last
non-zero pixel of every row and column describe it, so that windows of a scene of any size are
masked exactly like the whole, in memory proportional to its edges.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.pixel_window import Range

Filled = Callable[[Range, Range], NDArray[np.bool_]]
"""Mask (H, W) of the pixels of a window that are non-zero and valid."""

_STRIP_BYTES = 32 << 20


@dataclass(frozen=True)
class ZeroCollar:
    """First and last non-zero pixel of every row and column; (size, -1) if there is none."""

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    top: NDArray[np.int32]
    bottom: NDArray[np.int32]

    @property
    def is_whole_image(self) -> bool:
        """Whether all pixels of the image are zero."""
        return bool((self.right < 0).all())

    def covers(self, rows: Range, cols: Range) -> NDArray[np.bool_]:
        """Mask (H, W) of the window's pixels that lie in the collar."""
        if not self._reaches(rows, cols):
            return np.zeros((rows[1] - rows[0], cols[1] - cols[0]), bool)
        row = np.arange(*rows, dtype=np.int32)[:, None]
        col = np.arange(*cols, dtype=np.int32)[None, :]
        beside = (col < self.left[slice(*rows), None]) | (col > self.right[slice(*rows), None])
        above = (row < self.top[None, slice(*cols)]) | (row > self.bottom[None, slice(*cols)])
        return beside | above

    def _reaches(self, rows: Range, cols: Range) -> bool:
        """Whether any pixel of the window lies in the collar."""
        down, across = slice(*rows), slice(*cols)
        return bool(
            (self.left[down] > cols[0]).any()
            or (self.right[down] < cols[1] - 1).any()
            or (self.top[across] > rows[0]).any()
            or (self.bottom[across] < rows[1] - 1).any()
        )


def find_collar(
    shape: tuple[int, int],
    filled: Filled,
    *,
    pixel_bytes: int = 8,
    block: tuple[int, int] | None = None,
) -> ZeroCollar:
    """The collar of an image (H, W): none if its rim is filled, else measured strip by strip.

    Args:
        shape: size of the image.
        filled: reads a window of it.
        pixel_bytes: size of a pixel, which bounds the strips.
        block: rows and columns that the file stores together; None is single rows. Strips are a
            multiple of the rows. The rim is not tested first in files of whole rows, whose columns
            cannot be read alone.
    """
    height, width = shape
    block_rows, block_cols = block or (1, width)
    rim = [((row, row + 1), (0, width)) for row in (0, height - 1)]
    rim += [((0, height), (col, col + 1)) for col in (0, width - 1)]
    if block_cols < width and all(filled(*window).all() for window in rim):
        rows, cols = np.zeros(height, np.int32), np.zeros(width, np.int32)
        return ZeroCollar(rows, rows + np.int32(width - 1), cols, cols + np.int32(height - 1))
    step = max(1, _STRIP_BYTES // (width * pixel_bytes) // block_rows) * block_rows
    firsts = range(0, height, step)
    strips = ((first, filled((first, min(first + step, height)), (0, width))) for first in firsts)
    return measure_collar(shape, strips)


def measure_collar(
    shape: tuple[int, int], strips: Iterable[tuple[int, NDArray[np.bool_]]]
) -> ZeroCollar:
    """The collar of an image (H, W) from strips of full rows: (first row, mask of non-zeros)."""
    height, width = shape
    left = np.full(height, width, np.int32)
    right = np.full(height, -1, np.int32)
    top = np.full(width, height, np.int32)
    bottom = np.full(width, -1, np.int32)
    for first, filled in strips:
        if not filled.any():
            continue
        rows = slice(first, first + len(filled))
        left[rows] = _first_filled(filled.T)
        right[rows] = width - 1 - _first_filled(filled.T[::-1])
        fresh = first + _first_filled(filled)
        seen = fresh < rows.stop
        top = np.where(seen & (top == height), fresh, top)
        bottom = np.where(seen, rows.stop - 1 - _first_filled(filled[::-1]), bottom)
    return ZeroCollar(left, right, top.astype(np.int32), bottom.astype(np.int32))


def _first_filled(filled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Index of the first True of each column of `filled` (N, M); N where there is none."""
    found = np.zeros(filled.shape[1], np.int64)
    # Most columns start with a filled pixel: only the others are searched.
    late = np.flatnonzero(~filled[0])
    columns = filled[:, late]
    found[late] = np.where(columns.any(axis=0), columns.argmax(axis=0), len(filled))
    return found


class LazyCollar:
    """The collar of one image, measured on first use, which reads all of it."""

    def __init__(self, measure: Callable[[], ZeroCollar]) -> None:
        """Store how it is measured; nothing is read yet."""
        self._measure = measure
        self._lock = threading.Lock()
        self._known: ZeroCollar | None = None

    def get(self) -> ZeroCollar:
        """The collar."""
        with self._lock:
            if self._known is None:
                self._known = self._measure()
            return self._known
