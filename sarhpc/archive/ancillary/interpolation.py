"""Interpolation of optical pixels: box means, then bilinear between their centres."""

from __future__ import annotations

from math import hypot

import numpy as np
from numpy.typing import NDArray

NODE_PX = 16
"""Spacing of exactly projected nodes; between them coordinates are linear (error under 1e-3 px)."""


def node_interpolation(
    positions: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Node positions and the matrix that interpolates linearly from them to `positions`."""
    nodes = nodes_over(float(positions[0]) - 0.5, float(positions[-1]) + 0.5)
    return nodes, linear_weights(nodes, positions)


def nodes_over(first: float, last: float) -> NDArray[np.float64]:
    """Nodes from `first` to `last`, at most NODE_PX apart, and never fewer than two."""
    return np.linspace(first, last, max(2, -(-round(last - first) // NODE_PX) + 1))


def linear_weights(
    nodes: NDArray[np.float64], positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The matrix (positions, nodes) that interpolates linearly from `nodes` to `positions`."""
    unit = np.eye(len(nodes))
    return np.stack([np.interp(positions, nodes, row) for row in unit], axis=1)


def pixel_step(coordinate: NDArray[np.float64]) -> int:
    """Image pixels, along one image axis, in the width of a tile pixel: at least 1."""
    steps = []
    for axis in (0, 1):
        sparse = coordinate[:, ::NODE_PX] if axis == 0 else coordinate[::NODE_PX]
        change = np.abs(np.diff(sparse, axis=axis))
        known = change[np.isfinite(change)]
        steps.append(float(np.median(known)) if known.size else 0.0)
    return max(1, round(hypot(*steps)))


def pixel_span(coordinate: NDArray[np.float64], step: int, size: int) -> tuple[int, int]:
    """The image rows or columns around the points, with a margin of one box on both sides.

    They begin on a multiple of the box, so that neighbouring tiles share the same averages.
    """
    known = np.clip(coordinate[np.isfinite(coordinate)], 0, size)
    first = max(0, (int(known.min()) // step - 1) * step)
    last = min(size, int(np.ceil(known.max())) + 2 * step)
    return min(first, size - 1), last


def box_means(planes: NDArray[np.float32], row_step: int, col_step: int) -> NDArray[np.float32]:
    """Means of planes (B, h, w) over boxes of `row_step` x `col_step`; the last may be partial."""
    if row_step == col_step == 1:
        return planes
    height, width = planes.shape[1:]
    edges = ((0, 0), (0, -height % row_step), (0, -width % col_step))
    padded = np.pad(planes, edges, mode="edge") if edges[1][1] or edges[2][1] else planes
    # Rows first, on whole planes: five times faster than a mean over two axes.
    rows = padded[:, ::row_step].copy()
    for row in range(1, row_step):
        rows += padded[:, row::row_step]
    boxes = rows[:, :, ::col_step].copy()
    for col in range(1, col_step):
        boxes += rows[:, :, col::col_step]
    boxes /= np.float32(row_step * col_step)
    return boxes


def bilinear(
    planes: NDArray[np.float32], row_at: NDArray[np.float64], col_at: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Planes (B, h, w) at pixel-centre coordinates, (B, H, W); the edge is repeated."""
    if row_at.shape[0] == 1 and col_at.shape[1] == 1:
        turned = bilinear(planes, row_at.T, col_at.T)
        return turned.transpose(0, 2, 1)
    one = np.float32(1)
    row0, row1, down = _neighbours(row_at, planes.shape[1])
    col0, col1, right = _neighbours(col_at, planes.shape[2])
    if row_at.shape[1] == 1 and col_at.shape[0] == 1:
        rows = _picked(planes, row0[:, 0], 1)
        if down.any():
            rows = rows * (one - down) + _picked(planes, row1[:, 0], 1) * down
        found = _picked(rows, col0[0], 2)
        if right.any():
            found = found * (one - right) + _picked(rows, col1[0], 2) * right
        return found
    flat = planes.reshape(len(planes), -1)
    width = planes.shape[2]
    above, below = row0 * width, row1 * width
    upper = flat[:, above + col0] * (one - right) + flat[:, above + col1] * right
    lower = flat[:, below + col0] * (one - right) + flat[:, below + col1] * right
    mixed: NDArray[np.float32] = upper * (one - down) + lower * down
    return mixed


def _picked(
    planes: NDArray[np.float32], index: NDArray[np.int64], axis: int
) -> NDArray[np.float32]:
    """Rows (axis 1) or columns (axis 2) of planes by index, as a view where they are adjacent."""
    if (np.diff(index) == 1).all():
        part = slice(int(index[0]), int(index[-1]) + 1)
        return planes[:, part] if axis == 1 else planes[:, :, part]
    return np.take(planes, index, axis=axis)


def _neighbours(
    at: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Indices of the pixels before and after, and the share of the one after."""
    inner = np.clip(np.nan_to_num(at, posinf=0, neginf=0), 0, size - 1)
    first = inner.astype(np.int64)
    share = (inner - first).astype(np.float32)
    # Less than a thousandth of a pixel is rounding of large map coordinates.
    near = np.rint(inner)
    exact = np.abs(inner - near) < 1e-3
    first = np.where(exact, near.astype(np.int64), first)
    share[exact] = 0
    return first, np.minimum(first + 1, size - 1), share
