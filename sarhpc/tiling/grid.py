"""Geometry of tiles: a scene in the canonical frame, its output pixels, its grid of tiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.archive.geolocation import fit_affine, lattice
from sarhpc.archive.scene import PixelPlacement, SarHeader
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.orientation import (
    Affine,
    Interval,
    Orientation,
    canonical_orientation,
    compose,
    transform,
)

SPACING_TOLERANCE = 5e-4
"""Relative deviation from the requested pixel spacing allowed for a small rational ratio."""

MAX_UPSAMPLING = 1.5
"""Ratio beyond which up-sampling is refused unless the configuration allows it."""

TileIndex = tuple[int, int]


def resampling_ratio(spacing_m: float, pixel_m: float | None) -> Fraction:
    """Output pixels per native pixel, as the smallest fraction within SPACING_TOLERANCE.

    A rational ratio puts output pixels at exact positions of an FFT of finite length. The true
    spacing of output pixels, `spacing_m / ratio`, is what affines and metadata record.

    Raises:
        DataError: the native spacing is not a positive number.
    """
    if not (math.isfinite(spacing_m) and spacing_m > 0):
        raise DataError(
            f"pixel spacing {spacing_m} m is not positive; correct the scene's metadata"
        )
    if pixel_m is None:
        return Fraction(1)
    wanted = spacing_m / pixel_m
    denominator = 1
    while True:
        ratio = Fraction(round(wanted * denominator), denominator)
        if abs(ratio / wanted - 1) <= SPACING_TOLERANCE:
            return ratio
        denominator += 1


@dataclass(frozen=True)
class SceneFrame:
    """A scene rotated into the canonical frame, with output pixels at `ratio` per native pixel."""

    native_shape: tuple[int, int]
    native_affine: Affine
    crs: str | None
    orientation: Orientation
    spacing_m: tuple[float, float]
    """Native (row, col) spacing along the canonical axes, metres."""
    ratio: tuple[Fraction, Fraction]
    """Output pixels per native pixel along canonical (rows, cols)."""
    placement: PixelPlacement | None = None
    """Position of native pixels, for a scene that no single affine describes."""

    @property
    def canonical_shape(self) -> tuple[int, int]:
        """(rows, cols) of native pixels in the canonical frame."""
        return self.orientation.shape(self.native_shape)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of output pixels that lie wholly inside the scene."""
        rows, cols = self.canonical_shape
        return math.floor(rows * self.ratio[0]), math.floor(cols * self.ratio[1])

    @property
    def pixel_m(self) -> tuple[float, float]:
        """True (row, col) spacing of output pixels, metres."""
        row, col = (s / float(r) for s, r in zip(self.spacing_m, self.ratio, strict=True))
        return row, col

    @property
    def upsampling(self) -> float:
        """Larger of the two ratios: above 1, output pixels are finer than native ones."""
        return float(max(self.ratio))

    def affine_at(self, row: int, col: int) -> Affine:
        """Affine of an output window whose first pixel is output pixel (row, col).

        For a scene with `placement` it is the best affine over the whole scene; place tiles with
        `window_affine`.
        """
        return compose(self.native_affine, self._to_native(row, col))

    def window_affine(self, rows: Interval, cols: Interval) -> Affine:
        """Affine of the output window (rows, cols): exact, or the best fit over this window."""
        if self.placement is None:
            return self.affine_at(rows[0], cols[0])
        inside = lattice((0, 0), (cols[1] - cols[0], rows[1] - rows[0]))
        return fit_affine(inside, self.to_map(inside, (rows[0], cols[0])))

    def to_map(
        self, positions: NDArray[np.float64], origin: tuple[int, int] = (0, 0)
    ) -> NDArray[np.float64]:
        """Map coordinates (..., 2) of output positions (..., 2) = (col, row) from `origin`."""
        if self.placement is None:
            return transform(self.affine_at(*origin), positions)
        return self.placement.to_map(transform(self._to_native(*origin), positions))

    def affine_error_m(self, rows: Interval, cols: Interval) -> float:
        """Largest deviation of the affine of a window from the true placement, metres."""
        inside = lattice((0, 0), (cols[1] - cols[0], rows[1] - rows[0]))
        truth = self.to_map(inside, (rows[0], cols[0]))
        missed = transform(self.window_affine(rows, cols), inside) - truth
        return float(np.hypot(*missed.T).max())

    def _to_native(self, row: int, col: int) -> Affine:
        step_row, step_col = (1 / float(ratio) for ratio in self.ratio)
        window: Affine = (step_col, 0.0, step_col * col, 0.0, step_row, step_row * row)
        return compose(self.orientation.native_affine(self.native_shape), window)

    def canonical_window(self, rows: Interval, cols: Interval) -> tuple[Interval, Interval]:
        """Canonical native (rows, cols) that an output window touches."""
        return _covered(rows, self.ratio[0]), _covered(cols, self.ratio[1])

    def native_window(self, rows: Interval, cols: Interval) -> list[int]:
        """[row0, col0, rows, cols] in the scene as stored, of an output window."""
        canonical = self.canonical_window(rows, cols)
        (r0, r1), (c0, c1) = self.orientation.native_window(*canonical, self.native_shape)
        return [r0, c0, r1 - r0, c1 - c0]


def scene_frame(header: SarHeader, pixel_m: float | None) -> SceneFrame:
    """The canonical frame of a scene, with output pixels of `pixel_m` (null keeps its own).

    Raises:
        DataError: the header's spacing is not positive.
    """
    orientation = canonical_orientation(header.range_direction)
    row_m, col_m = orientation.pair(header.spacing_m)
    return SceneFrame(
        native_shape=header.shape,
        native_affine=header.affine,
        crs=header.crs,
        orientation=orientation,
        spacing_m=(row_m, col_m),
        ratio=(resampling_ratio(row_m, pixel_m), resampling_ratio(col_m, pixel_m)),
        placement=header.placement,
    )


@dataclass(frozen=True)
class TileGrid:
    """Tiles of a scene: `rows` x `cols` of them, tile (i, j) starting at (i, j) * stride_px."""

    rows: int
    cols: int
    tile_px: int
    stride_px: int
    block_tiles: int

    def __contains__(self, tile: TileIndex) -> bool:
        """Whether the scene has this tile."""
        return 0 <= tile[0] < self.rows and 0 <= tile[1] < self.cols

    def window(self, tile: TileIndex) -> tuple[Interval, Interval]:
        """Output (rows, cols) of a tile."""
        row, col = tile[0] * self.stride_px, tile[1] * self.stride_px
        return (row, row + self.tile_px), (col, col + self.tile_px)

    def block_of(self, tile: TileIndex) -> TileIndex:
        """The block of the scene's fixed grid of blocks that contains a tile."""
        return tile[0] // self.block_tiles, tile[1] // self.block_tiles

    def block_window(self, block: TileIndex) -> tuple[Interval, Interval]:
        """Output (rows, cols) of all tiles of a block, planned or not.

        Fixed for the scene, so that a tile's bits do not depend on its neighbours in a plan.
        """
        rows = self._block_interval(block[0], self.rows)
        return rows, self._block_interval(block[1], self.cols)

    def _block_interval(self, block: int, count: int) -> Interval:
        first = block * self.block_tiles
        last = min(first + self.block_tiles, count) - 1
        return first * self.stride_px, last * self.stride_px + self.tile_px

    def tiles(self) -> Iterator[TileIndex]:
        """All tiles, block by block, so that neighbours in a plan share one read."""
        return ((row, col) for row, col in self.indices().tolist())

    def indices(self) -> NDArray[np.int64]:
        """All tiles (N, 2) as (row, col), in the order of `tiles`."""
        row, col = np.indices((self.rows, self.cols), np.int64).reshape(2, -1)
        size = self.block_tiles
        order = np.lexsort((col, row, col // size, row // size))
        return np.stack([row[order], col[order]], axis=1)

    def by_block(self, tiles: Iterable[TileIndex]) -> Iterator[tuple[TileIndex, list[TileIndex]]]:
        """Runs of successive `tiles` that share a block."""
        for block, run in groupby(tiles, key=self.block_of):
            yield block, list(run)


def tile_grid(frame: SceneFrame, cfg: TileConfig) -> TileGrid:
    """The grid of tiles of a scene, from its first canonical pixel on; empty if it is too small."""
    stride = cfg.stride_px or cfg.tile_px
    rows, cols = (max((n - cfg.tile_px) // stride + 1, 0) for n in frame.shape)
    return TileGrid(rows, cols, cfg.tile_px, stride, cfg.block_tiles)


def _covered(output: Interval, ratio: Fraction) -> Interval:
    return math.floor(output[0] / ratio), math.ceil(output[1] / ratio)
