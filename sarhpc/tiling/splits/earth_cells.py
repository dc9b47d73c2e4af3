"""Split cells near many tiles at once, for scenes too large to outline every tile.

The outline of a tile costs a hundred microseconds, and an archive has ten million tiles. The
position of the tiles of a scene is a smooth function of row and column, so a polynomial through a
few transformed points gives their bounding boxes; its error is measured on some of the tiles. A
tile whose box comes within four times that error of a cell edge is outlined itself: every tile gets
exactly the cells that `cells_near` gives it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from sarhpc.tiling.grid import SceneFrame, TileGrid, TileIndex
from sarhpc.tiling.splits.assignment import (
    EDGE_DEGREES,
    METRES_PER_DEGREE,
    band_of_cells,
    cells_near,
)
from sarhpc.tiling.splits.footprint import tile_footprints, to_wgs84

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_FEWEST = 256
"""Number of tiles below which outlines are cheap enough."""
_DEGREE = 10
_PROBES = 8
"""Tiles along each side of the grid on which the polynomial is measured."""
_ROUNDING = 2e-8
"""Upper bound of the rounding of outlines, degrees."""
_LARGEST_MISS = 1e-4
_MOST_STEPS = 6
"""Cells along a tile above which outlines are not slower."""
_POLAR_DEGREES = 85.0
_WIDE_DEGREES = 90.0


@dataclass(frozen=True)
class NearCells:
    """Cells near the tiles of a scene: (tile, cell) pairs, sorted by tile."""

    tile: Ints
    """Index of the tile among those requested (M,)."""
    cell: Ints
    """Index of the cell in `names` (M,)."""
    names: tuple[str, ...]

    def shared_values(self, values: Ints) -> Ints:
        """The value (T,) that all cells of each tile share; -1 where they differ.

        Args:
            values: one for each of `names`; must be >= 0.
        """
        if not self.tile.size:
            return self.tile
        of_pairs = values[self.cell]
        first = np.flatnonzero(np.diff(self.tile, prepend=-1))
        least = np.minimum.reduceat(of_pairs, first)
        return np.where(least == np.maximum.reduceat(of_pairs, first), least, -1)

    def of_tiles(self, chosen: NDArray[np.bool_]) -> list[str]:
        """Names of the cells near the `chosen` tiles, a mask (T,)."""
        return [self.names[n] for n in np.unique(self.cell[chosen[self.tile]])]


def near_cells(
    frame: SceneFrame, grid: TileGrid, tiles: Ints, buffer_m: float, cell_m: float
) -> NearCells | None:
    """The cells within `buffer_m` of each of `tiles` (T, 2); None for a scene without a CRS.

    Raises:
        DataError: the scene's CRS is unknown, or does not reach where the scene lies.
    """
    if frame.crs is None:
        return None
    boxes = _boxes(frame, grid, tiles) if len(tiles) >= _FEWEST else None
    found = _Pairs()
    rest = np.arange(len(tiles))
    if boxes is not None:
        rest = found.add_boxes(*boxes, buffer_m, cell_m)
    for first in range(0, len(rest), 4096):
        some = rest[first : first + 4096]
        outlines = tile_footprints(frame, grid, _indices(tiles[some]))
        assert outlines is not None
        for tile, outline in zip(some, outlines, strict=True):
            found.add(int(tile), cells_near(outline, buffer_m, cell_m))
    return found.joined()


def _indices(tiles: Ints) -> list[TileIndex]:
    return [(row, col) for row, col in tiles.tolist()]


class _Pairs:
    """(tile, cell) pairs under construction."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._tiles: list[Ints] = []
        self._cells: list[Ints] = []

    def add(self, tile: int, names: Iterable[str]) -> None:
        """Add the cells `names` of one tile."""
        cells = np.array([self._number(name) for name in names], np.int64)
        self._tiles.append(np.full(len(cells), tile, np.int64))
        self._cells.append(cells)

    def add_boxes(self, boxes: Array, margin: float, buffer_m: float, cell_m: float) -> Ints:
        """Add the cells of all tiles clear of cell edges; returns the indices of the others."""
        spans = _CellSpans(boxes, buffer_m, cell_m)
        stable = spans.stable(margin)
        for tile, row, col in spans.cells():
            kept = stable[tile]
            key, back = np.unique(row[kept] * (1 << 32) + col[kept], return_inverse=True)
            numbers = [self._number(f"{k >> 32}:{k & 0xFFFFFFFF}") for k in key.tolist()]
            self._tiles.append(tile[kept])
            self._cells.append(np.array(numbers, np.int64)[back])
        return np.flatnonzero(~stable)

    def joined(self) -> NearCells:
        """All pairs, sorted by tile."""
        nothing = np.empty(0, np.int64)
        tile, cell = (np.concatenate([nothing, *each]) for each in (self._tiles, self._cells))
        order = np.argsort(tile, kind="stable")
        return NearCells(tile[order], cell[order], tuple(self._numbers))

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))


class _CellSpans:
    """Rows and columns of cells that buffered boxes (T, 4) of west, south, east, north touch."""

    def __init__(self, boxes: Array, buffer_m: float, cell_m: float) -> None:
        self._west, self._south, self._east, self._north = boxes.T
        self._pad = buffer_m / METRES_PER_DEGREE + EDGE_DEGREES
        self._height = cell_m / METRES_PER_DEGREE
        self._first, self._last = self._rows(0.0)
        lowest, highest = int(self._first.min()) - 1, int(self._last.max()) + 1
        bands = [band_of_cells(row, cell_m) for row in range(lowest, highest + 1)]
        self._lowest = lowest
        self._shrink, self._columns, self._width = (np.array(v) for v in zip(*bands, strict=True))

    def _rows(self, shift: float) -> tuple[Ints, Ints]:
        """First and last row of each box grown by `shift` degrees."""
        low = np.floor((self._south - self._pad - shift) / self._height).astype(np.int64)
        high = np.floor((self._north + self._pad + shift) / self._height).astype(np.int64)
        return low, high

    def _cols(self, row: Ints, tile: Ints, shift: float) -> tuple[Ints, Ints]:
        """First and last column, in the row of each, of the boxes `tile` grown by `shift`."""
        at = row - self._lowest
        pad, width = self._pad / self._shrink[at], self._width[at]
        low = np.floor((self._west[tile] + 180 - pad - shift) / width).astype(np.int64)
        high = np.floor((self._east[tile] + 180 + pad + shift) / width).astype(np.int64)
        return low, high

    def stable(self, margin: float) -> NDArray[np.bool_]:
        """Boxes (T,) whose cells do not change when their edges shift by `margin` degrees."""
        known = np.ones(len(self._first), bool)
        for grown, shrunk in zip(self._rows(margin), self._rows(-margin), strict=True):
            known &= grown == shrunk
        known &= self._last - self._first < _MOST_STEPS
        for tile, row in self._bands():
            grown, shrunk = (np.stack(self._cols(row, tile, s)) for s in (margin, -margin))
            steady = (grown == shrunk).all(axis=0) & (grown[1] - grown[0] < _MOST_STEPS)
            known[tile[~steady]] = False
        return known

    def _bands(self) -> list[tuple[Ints, Ints]]:
        """For each step upwards the boxes that reach it, and the row they reach."""
        found = []
        for step in range(min(int((self._last - self._first).max()) + 1, _MOST_STEPS)):
            tile = np.flatnonzero(self._first + step <= self._last)
            found.append((tile, self._first[tile] + step))
        return found

    def cells(self) -> list[tuple[Ints, Ints, Ints]]:
        """Index, row and column of every (box, cell) pair, in groups."""
        found = []
        for tile, row in self._bands():
            first, last = self._cols(row, tile, 0.0)
            around = self._columns[row - self._lowest]
            for step in range(min(int((last - first).max()) + 1, _MOST_STEPS)):
                reached = first + step <= last
                col = (first[reached] + step) % around[reached]
                found.append((tile[reached], row[reached], col))
        return found


def _boxes(frame: SceneFrame, grid: TileGrid, tiles: Ints) -> tuple[Array, float] | None:
    """Boxes (T, 4) of west, south, east, north, and their largest error times four, degrees.

    None where positions are not smooth enough, or near a pole or the antimeridian.
    """
    if frame.placement is not None:
        return None
    model = _PositionModel(frame, grid)
    if not model.simple:
        return None
    probes = _probes(tiles)
    outlines = tile_footprints(frame, grid, _indices(tiles[probes]))
    assert outlines is not None
    true = np.concatenate([outlines.min(axis=1), outlines.max(axis=1)], axis=1)
    boxes = model.boxes(tiles)
    miss = float(np.abs(boxes[probes] - true).max())
    if not miss < _LARGEST_MISS:
        return None
    return boxes, 4 * miss + _ROUNDING


def _probes(tiles: Ints) -> Ints:
    """Indices of tiles spread over the grid, its corners included."""
    order = np.lexsort((tiles[:, 1], tiles[:, 0]))
    evenly = np.linspace(0, len(tiles) - 1, _PROBES * _PROBES).round().astype(np.int64)
    corners = [f(tiles @ np.array(d)) for f in (np.argmin, np.argmax) for d in ((1, 1), (1, -1))]
    return np.unique(np.concatenate([order[evenly], corners]))


class _PositionModel:
    """Longitude and latitude over the grid of tiles as polynomials of its rows and columns."""

    def __init__(self, frame: SceneFrame, grid: TileGrid) -> None:
        self._grid = grid
        last = (grid.rows - 1, grid.cols - 1)
        self._extent = [span[1] for span in grid.window(last)]
        nodes = np.cos(np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1))
        row, col = ((nodes + 1) / 2 * extent for extent in self._extent)
        points = frame.to_map(np.stack(np.meshgrid(col, row), axis=-1))
        assert frame.crs is not None
        lon, lat = to_wgs84(frame.crs).transform(points[..., 0], points[..., 1])
        self._values = np.stack([lon, lat])
        self._inverse = np.linalg.inv(chebyshev.chebvander(nodes, _DEGREE))

    @property
    def simple(self) -> bool:
        """Whether the scene lies off the poles and the antimeridian."""
        lon, lat = self._values
        if not np.isfinite(self._values).all() or np.abs(lat).max() > _POLAR_DEGREES:
            return False
        return bool(np.ptp(lon) < _WIDE_DEGREES and np.abs(lon).max() < 180 - EDGE_DEGREES)

    def boxes(self, tiles: Ints) -> Array:
        """West, south, east, north (T, 4) of the corners of `tiles` (T, 2)."""
        rows, row_at = np.unique(tiles[:, 0], return_inverse=True)
        cols, col_at = np.unique(tiles[:, 1], return_inverse=True)
        down = [self._terms(rows, beyond, 0) for beyond in (0, self._grid.tile_px)]
        right = [self._terms(cols, beyond, 1).T for beyond in (0, self._grid.tile_px)]
        corners = np.stack([first @ self._values @ last for first in down for last in right])
        ends = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        return np.asarray(ends[:, row_at, col_at].T)

    def _terms(self, numbers: Ints, beyond: int, axis: int) -> Array:
        """Weights (N, nodes) of the nodes at positions `beyond` pixels from the start of tiles."""
        pixels = numbers * self._grid.stride_px + beyond
        unit = 2 * pixels / self._extent[axis] - 1
        return np.asarray(chebyshev.chebvander(unit, _DEGREE) @ self._inverse)
