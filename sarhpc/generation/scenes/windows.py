"""Windows of a scene: a grid that each evaluation of the network shifts anew.

Neighbouring windows abut, so that each latent pixel takes one prediction. Where the grid leaves
less than a window at an edge, the window lies inside the scene and only what the grid leaves there
is taken of its prediction: nothing wraps around or is reflected, and the network always sees
windows of one size.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

Size = tuple[int, int]
"""Rows and columns, or an offset along both, latent px."""


@dataclass(frozen=True)
class Span:
    """A window along one axis, and the part of it that is kept, in pixels of the scene."""

    origin: int
    start: int
    stop: int

    @property
    def inside(self) -> slice:
        """The part that is kept, counted from the origin of the window."""
        return slice(self.start - self.origin, self.stop - self.origin)


@dataclass(frozen=True)
class Window:
    """A window of a scene."""

    rows: Span
    columns: Span

    @property
    def kept(self) -> tuple[slice, slice]:
        """The part of the scene that takes its prediction."""
        return slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop)

    @property
    def kept_inside(self) -> tuple[slice, slice]:
        """The same part, counted from the origin of the window."""
        return self.rows.inside, self.columns.inside


def window_offset(seed: int, evaluation: int, side: Size) -> Size:
    """Offset of the grid at one evaluation of the network, 0 to side - 1: of the image's seed.

    A hash, so that it depends on no library's generator.
    """
    digest = hashlib.sha256(json.dumps([seed, "windows", evaluation]).encode()).digest()
    rows, columns = (int.from_bytes(part, "big") for part in (digest[:8], digest[8:16]))
    return rows % side[0], columns % side[1]


def spans(length: int, side: int, offset: int) -> list[Span]:
    """The windows along an axis of `length`, on a grid of `side` shifted by `offset`.

    Their kept parts cover the axis without overlap.

    Raises:
        ValueError: the axis is shorter than a window.
    """
    if length < side:
        raise ValueError(f"an axis of {length} is shorter than a window of {side}")
    if length == side:
        return [Span(0, 0, length)]
    grid = range(offset - side if offset else 0, length, side)
    return [
        Span(min(max(start, 0), length - side), max(start, 0), min(start + side, length))
        for start in grid
    ]


def windows_of(size: Size, side: Size, offset: Size) -> list[Window]:
    """The windows of a scene of `size`, row by row."""
    rows, columns = (
        spans(length, window, shift)
        for length, window, shift in zip(size, side, offset, strict=True)
    )
    return [Window(row, column) for row in rows for column in columns]


def most_windows(size: Size, side: Size) -> int:
    """Windows of a scene at most, whatever the offset."""
    rows, columns = (
        1 if length == window else -(-(length - 1) // window) + 1
        for length, window in zip(size, side, strict=True)
    )
    return rows * columns
