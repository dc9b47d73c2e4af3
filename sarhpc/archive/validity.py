"""Which zeros are outside a scene: those that reach the image edge without a gap.

Zero inside a scene is radar shadow or calm water and valid. Zero that runs from the image edge
along its row or column up to the first other value is the collar around a rotated scene. Four
numbers per row and column describe the collar, so that a window of a scene of any size is masked
exactly like the whole, in memory of its edge lengths.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.window import Range


@dataclass(frozen=True)
class ZeroCollar:
    """First and last other-than-zero pixel of every row and column; (size, -1) where none is."""

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    top: NDArray[np.int32]
    bottom: NDArray[np.int32]

    @property
    def is_whole_image(self) -> bool:
        """Whether no pixel of the image is other than zero."""
        return bool((self.right < 0).all())

    def covers(self, rows: Range, cols: Range) -> NDArray[np.bool_]:
        """Mask (H, W) of the window's pixels that lie in the collar."""
        row = np.arange(*rows, dtype=np.int32)[:, None]
        col = np.arange(*cols, dtype=np.int32)[None, :]
        beside = (col < self.left[slice(*rows), None]) | (col > self.right[slice(*rows), None])
        above = (row < self.top[None, slice(*cols)]) | (row > self.bottom[None, slice(*cols)])
        return beside | above


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
        some = filled.any(axis=1)
        left[rows] = np.where(some, filled.argmax(axis=1), width)
        right[rows] = np.where(some, width - 1 - filled[:, ::-1].argmax(axis=1), -1)
        seen = filled.any(axis=0)
        top = np.where(seen & (top == height), first + filled.argmax(axis=0), top)
        last = first + len(filled) - 1 - filled[::-1].argmax(axis=0)
        bottom = np.where(seen, last, bottom)
    return ZeroCollar(left, right, top.astype(np.int32), bottom.astype(np.int32))


class LazyCollar:
    """The collar of one image, measured once, when a thread first asks: that reads all of it."""

    def __init__(self, measure: Callable[[], ZeroCollar]) -> None:
        """Remember how it is measured; nothing is read yet."""
        self._measure = measure
        self._lock = threading.Lock()
        self._known: ZeroCollar | None = None

    def get(self) -> ZeroCollar:
        """The collar."""
        with self._lock:
            if self._known is None:
                self._known = self._measure()
            return self._known
