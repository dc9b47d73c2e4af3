"""Maps of the ground that a tile shows: what is left of it without speckle, level and slow trends.

Intensity is averaged in 32 x 32 cells and a little over their neighbours (multilook), its logarithm
freed of what changes over many cells (incidence, antenna pattern) and normalised. New speckle on
the same ground and a gain hardly change a map; a copy that is shifted or flipped in azimuth shows
in the correlation of maps over shifts (`correlate`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sarhpc.measures.features import amplitude

LEAST_PX = 64
"""Shortest side of a tile: two pixels a cell."""
SIDE = 32
"""Cells along each side of a map."""
MOST_SHIFT_PX = 32
"""Largest shift at which copies are looked for; a quarter of the side of smaller tiles."""
MAP_BYTES = 2 * SIDE * SIDE

_SMOOTHED, _TREND = 0.7, 2.0
"""Standard deviations, cells, of the averaging over neighbours and of the trend."""
_FLOOR = 1e-6
_EVEN_DB = 1.3

Maps = NDArray[np.floating[Any]]


def ground_map(image: NDArray[Any]) -> NDArray[np.float16]:
    """Map (32, 32) of a tile (H, W), of zero mean and unit variance; zeros where nothing is seen.

    Args:
        image: linear amplitude or 8-bit codes of it, azimuth along rows.

    Raises:
        ValueError: not two-dimensional, or a side below 64 px; values that are not finite.
    """
    detail = _detail(image)
    spread = float(detail.std())
    return np.asarray(detail / spread if spread > 1e-9 else 0 * detail, np.float16)


def detail_db(image: NDArray[Any]) -> float:
    """Standard deviation of what a map shows of a tile before it is normalised, dB.

    Raises:
        ValueError: as `ground_map`.
    """
    return float(10 / np.log(10) * _detail(image).std())


def even_db(px: tuple[int, int]) -> float:
    """Detail below which copies of tiles of `px` rows and columns are hardly recognised, dB.

    Three times that of single-look speckle (0.43 dB in cells of 4 x 4 px).
    """
    rows, columns = (side // SIDE for side in px)
    return _EVEN_DB * 4 / float(np.sqrt(rows * columns))


def _detail(image: NDArray[Any]) -> NDArray[np.float64]:
    if image.ndim != 2 or min(image.shape) < LEAST_PX:
        raise ValueError(
            f"image of shape {image.shape}: copies are looked for in {LEAST_PX} x {LEAST_PX} px "
            "or more, give larger tiles"
        )
    I = np.square(amplitude(image), dtype=np.float64)  # noqa: E741
    if not np.isfinite(I).all():
        raise ValueError("pixels are NaN or infinite")
    rows, columns = (side // SIDE for side in I.shape)
    top, left = (side % SIDE // 2 for side in I.shape)
    inside = I[top : top + SIDE * rows, left : left + SIDE * columns]
    cells = inside.reshape(SIDE, rows, SIDE, columns).mean(axis=(1, 3))
    level = np.log(gaussian_filter(cells, _SMOOTHED) + _FLOOR * cells.mean() + 1e-300)
    detail = level - gaussian_filter(level, _TREND)
    return np.asarray(detail - detail.mean(), np.float64)


def most_shift_cells(px: tuple[int, int]) -> int:
    """Cells by which copies of tiles of `px` rows and columns are shifted at most."""
    side = min(px)
    return int(np.ceil(min(MOST_SHIFT_PX, side // 4) / (side // SIDE)))


def shifted(maps: Maps, rows: int, columns: int) -> Maps:
    """Maps (N, 32, 32) moved by cells; what nothing is known of is 0, the mean."""
    moved = np.zeros_like(maps)
    to, of = zip(*(_overlap(by) for by in (rows, columns)), strict=True)
    moved[:, to[0], to[1]] = maps[:, of[0], of[1]]
    return moved


def _overlap(by: int) -> tuple[slice, slice]:
    """Cells of a moved map that are known, and where they are from."""
    return slice(max(by, 0), SIDE + min(by, 0)), slice(max(-by, 0), SIDE - max(by, 0))


def correlate(ones: Maps, others: Maps, rows: int, columns: int) -> NDArray[np.float64]:
    """Similarity (N,) of pairs of maps (N, 32, 32) where they overlap, the first ones moved.

    Correlation r of fewer cells is larger by chance: the similarity is tanh(sqrt(f) atanh r) of
    maps that share a fraction f of their cells, and r without a shift.
    """
    to, of = zip(*(_overlap(by) for by in (rows, columns)), strict=True)
    a = ones[:, of[0], of[1]].astype(np.float32).reshape(len(ones), -1)
    b = others[:, to[0], to[1]].astype(np.float32).reshape(len(others), -1)
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.einsum("ni,ni->n", a, a) * np.einsum("ni,ni->n", b, b))
    r = np.einsum("ni,ni->n", a, b) / np.maximum(norm, 1e-6)
    share = a.shape[1] / SIDE**2
    return np.asarray(np.tanh(np.sqrt(share) * fisher(r)), np.float64)


def fisher(correlation: NDArray[Any]) -> NDArray[np.float64]:
    """Fisher's z of correlations, at most that of 0.9999."""
    return np.asarray(np.arctanh(np.clip(correlation, -0.9999, 0.9999)), np.float64)
