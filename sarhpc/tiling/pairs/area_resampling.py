"""Area-weighted resampling of the intensity of a scene to the pixels of a tile of another scene.

Every tile pixel is divided into a few cells, and a cell takes the intensity of the pixels it
overlaps, weighted by area. Finer pixels are averaged, coarser ones repeated; amplitudes are never
interpolated. Where the images are rotated against each other a cell is approximated by a square of
the same area along the axes of the image that is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.ancillary.interpolation import box_means, linear_weights, nodes_over, pixel_span
from sarhpc.archive.scene import SarReader
from sarhpc.tiling.block import read_patch
from sarhpc.tiling.grid import SceneFrame
from sarhpc.tiling.orientation import Affine, Interval, compose, inverse, transform
from sarhpc.tiling.resampling import Taps
from sarhpc.tiling.splits.footprint import crs_transformer

Array = NDArray[np.float64]

_HALF = 0.5
"""Least share of a tile pixel that must lie on data."""

_WINDOW_PX = 2048
"""Side of the window that is read at once, pixels, before rotation between both images."""

_KERNELS = 24
"""Pixels along each side of a tile whose kernels represent all."""

_STEPS = 8
_ARRIVED_PX = 0.01
_OUTSIDE = -10.0


@dataclass(frozen=True)
class Place:
    """Position of the pixels of a tile."""

    affine: Affine
    """Pixel corners (col, row) to metres in `crs`."""
    crs: str
    shape: tuple[int, int]


def locate(frame: SceneFrame, crs: str, points: Array) -> Array:
    """Pixel positions (..., 2) = (col, row) in a scene's frame of `points` (..., 2) in `crs`.

    NaN where the iteration for a scene without an affine does not converge, far outside of it.

    Args:
        frame: the scene, with a CRS.
        crs: of the points.
        points: map coordinates (x, y).

    Raises:
        DataError: PROJ does not know one of the two CRS.
    """
    own = frame.crs or crs
    if own != crs:
        points = np.stack(
            crs_transformer(crs, own).transform(points[..., 0], points[..., 1]), axis=-1
        )
    rough = inverse(frame.affine_at(0, 0))
    found = transform(rough, points)
    if frame.placement is None:
        return found
    slope = (rough[0], rough[1], 0.0, rough[3], rough[4], 0.0)
    moved = np.zeros_like(found)
    # The affine is off by hundredths of the distance, so each step reduces the error as much.
    for _ in range(_STEPS):
        moved = transform(slope, points - frame.to_map(found))
        found = found + moved
    found[~(np.hypot(moved[..., 0], moved[..., 1]) < _ARRIVED_PX)] = np.nan
    return found


def pixel_extent(frame: SceneFrame, place: Place) -> tuple[float, float]:
    """Pixels of a scene along its (rows, cols) per tile pixel, at the centre of the tile.

    The side of a square of the same area, where the tile is rotated against the scene.
    """
    height, width = place.shape
    # A point and its neighbours a quarter of the tile away along both axes, around the middle.
    positions = np.array([(3, 3), (5, 3), (3, 5)], np.float64) / 8 * (width, height)
    middle = transform(place.affine, positions)
    start, right, down = locate(frame, place.crs, middle)
    across, along = (right - start) / (width / 4), (down - start) / (height / 4)
    return float(np.hypot(across[1], along[1])), float(np.hypot(across[0], along[0]))


def area_kernels(frame: SceneFrame, place: Place) -> tuple[Taps, Taps]:
    """Kernels of some tile pixels on the pixels of a scene, along its (rows, cols).

    Looks are derived from them: coinciding pixels gain none, pixels half a step apart do.
    """
    rows, cols = (np.linspace(0, size, _KERNELS, endpoint=False) // 1 + 0.5 for size in place.shape)
    positions = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2)
    at = locate(frame, place.crs, transform(place.affine, positions))
    height, width = pixel_extent(frame, place)
    return area_taps(at[:, 1], height), area_taps(at[:, 0], width)


def area_taps(at: Array, extent: float) -> Taps:
    """Overlap of pixels of width `extent` at positions `at` (N,) with pixels of width 1."""
    low = at[np.isfinite(at)] - extent / 2
    first = np.floor(low)
    pixel = first[:, None] + np.arange(math.ceil(extent) + 1)
    overlap = np.minimum(pixel + 1, low[:, None] + extent) - np.maximum(pixel, low[:, None])
    weight = np.asarray(np.maximum(overlap, 0) / extent, np.float32)
    return Taps(pixel.astype(np.intp), weight)


def overlay(
    reader: SarReader, frame: SceneFrame, place: Place
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean intensity (H, W) of a scene under each pixel of a tile, 0 where invalid, and validity.

    Reads only what lies under the tile, piece by piece where that is large.

    Args:
        reader: the scene's image.
        frame: its frame at its own spacing (`scene_frame(header, None)`).
        place: the tile.

    Raises:
        DataError: the scene cannot be read, or PROJ does not know its CRS.
    """
    intensity = np.zeros(place.shape, np.float32)
    valid = np.zeros(place.shape, np.bool_)
    extent = pixel_extent(frame, place)
    if not all(math.isfinite(each) and each > 0 for each in extent):
        return intensity, valid
    cells = _Cells.of(extent)
    side = max(_WINDOW_PX // math.ceil(max(extent)), 1)
    for rows, cols in _pieces(place.shape, side):
        part = np.s_[slice(*rows), slice(*cols)]
        shift: Affine = (1.0, 0.0, float(cols[0]), 0.0, 1.0, float(rows[0]))
        shape = (rows[1] - rows[0], cols[1] - cols[0])
        piece = Place(compose(place.affine, shift), place.crs, shape)
        intensity[part], valid[part] = _overlay_piece(reader, frame, piece, cells)
    return intensity, valid


def _pieces(shape: tuple[int, int], side: int) -> Iterator[tuple[Interval, Interval]]:
    for row in range(0, shape[0], side):
        for col in range(0, shape[1], side):
            yield (row, min(row + side, shape[0])), (col, min(col + side, shape[1]))


@dataclass(frozen=True)
class _Cells:
    """Division of a tile pixel into cells, and the averaging before it."""

    count: int
    """Cells along each side of a tile pixel."""
    steps: tuple[int, int]
    """Whole pixels averaged along (rows, cols) first: at most half a tile pixel."""
    widths: tuple[float, float]
    """Extent of a cell along (rows, cols) in such averages, at most 1."""

    @classmethod
    def of(cls, extent: tuple[float, float]) -> _Cells:
        """Cells for tile pixels as wide as `extent` pixels of the scene along (rows, cols)."""
        steps = (max(int(extent[0] // 2), 1), max(int(extent[1] // 2), 1))
        boxes = [each / step for each, step in zip(extent, steps, strict=True)]
        count = max(2, math.ceil(max(boxes)))
        return cls(count, steps, (boxes[0] / count, boxes[1] / count))

    def offsets(self) -> Array:
        """Centres of the cells along a tile pixel, from its own centre."""
        return (np.arange(self.count) + 0.5) / self.count - 0.5


def _overlay_piece(
    reader: SarReader, frame: SceneFrame, place: Place, cells: _Cells
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    nodes = [nodes_over(0.0, float(size)) for size in place.shape]
    col, row = np.meshgrid(nodes[1], nodes[0])
    at = locate(frame, place.crs, transform(place.affine, np.stack([col, row], axis=-1)))
    cols_at, rows_at = at[..., 0], at[..., 1]
    empty = np.zeros(place.shape, np.float32), np.zeros(place.shape, np.bool_)
    height, width = frame.canonical_shape
    if not (_meets(rows_at, height) and _meets(cols_at, width)):
        return empty
    rows = pixel_span(rows_at, cells.steps[0], height)
    cols = pixel_span(cols_at, cells.steps[1], width)
    patch = read_patch(reader, frame, rows, cols)
    planes = np.stack([patch.intensity, patch.valid.astype(np.float32)])
    planes = np.pad(box_means(planes, *cells.steps), ((0, 0), (1, 1), (1, 1)))
    sums = np.zeros((2, *place.shape), np.float32)
    middle = [np.arange(size) + 0.5 for size in place.shape]
    across = [linear_weights(nodes[1], middle[1] + shift).T for shift in cells.offsets()]
    for shift in cells.offsets():
        along = linear_weights(nodes[0], middle[0] + shift)
        for right in across:
            down = _shares(along @ (rows_at - rows[0]) @ right, cells, 0, planes.shape[1])
            beside = _shares(along @ (cols_at - cols[0]) @ right, cells, 1, planes.shape[2])
            _gather(planes, down, beside, sums)
    intensity, known = sums / np.float32(cells.count**2)
    valid = known >= _HALF
    return np.where(valid, intensity / np.maximum(known, np.float32(1e-6)), 0), valid


def _meets(at: Array, size: int) -> bool:
    """Whether pixel positions overlap an image of `size` pixels along their axis."""
    known = at[np.isfinite(at)]
    return known.size > 0 and bool(known.max() > 0 and known.min() < size)


def _shares(
    at: Array, cells: _Cells, axis: int, size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """First and last padded pixel of a cell along one axis, and its share on the last."""
    width = cells.widths[axis]
    low = np.nan_to_num(at / cells.steps[axis], nan=_OUTSIDE) - width / 2
    first = np.floor(low)
    share = np.clip((low + width - first - 1) / width, 0, 1).astype(np.float32)
    before = np.clip(first + 1, 0, size - 1).astype(np.intp)
    return before, np.clip(first + 2, 0, size - 1).astype(np.intp), share


def _gather(
    planes: NDArray[np.float32],
    down: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]],
    beside: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]],
    sums: NDArray[np.float32],
) -> None:
    """Add to `sums` (2, H, W) intensity and validity under one cell of each tile pixel."""
    stride = planes.shape[2]
    upper, lower, below = down
    left, right, after = beside
    for plane, total in zip(planes, sums, strict=True):
        flat = plane.ravel()
        above = flat[upper * stride + left] * (1 - after) + flat[upper * stride + right] * after
        under = flat[lower * stride + left] * (1 - after) + flat[lower * stride + right] * after
        total += above * (1 - below) + under * below
