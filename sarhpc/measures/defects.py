"""Tiles with defects that diffusion or processing give to images: what a measure must see.

Each takes linear amplitude (H, W) with range along columns, and returns another of the same shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter

Tile = NDArray[np.floating[Any]]

BLOCK_PX = 8
"""Side of shuffled blocks and period of grids: that of decoders which double the size thrice."""
TARGET_DB = 20.0
"""Level over the median of a tile from which a pixel counts as a target."""


def gained(A: Tile, db: float) -> Tile:
    """The tile `db` brighter."""
    return A * 10 ** (db / 20)


def blurred(A: Tile, sigma_px: float = 0.6) -> Tile:
    """The tile with its intensity smoothed by a Gaussian of `sigma_px`."""
    return np.sqrt(gaussian_filter(A.astype(float) ** 2, sigma_px))


def shuffled(A: Tile, rng: np.random.Generator) -> Tile:
    """The tile with its pixels in random order within blocks of 8 x 8; sides are multiples of 8."""
    return _unblocked(rng.permuted(_blocks(A), axis=1), A.shape)


def block_shuffled(A: Tile, rng: np.random.Generator) -> Tile:
    """The tile with whole blocks of 8 x 8 px in random order; sides are multiples of 8."""
    return _unblocked(rng.permutation(_blocks(A)), A.shape)


def _blocks(A: Tile) -> Tile:
    rows, columns = (side // BLOCK_PX for side in A.shape)
    blocks = A.reshape(rows, BLOCK_PX, columns, BLOCK_PX).transpose(0, 2, 1, 3)
    return blocks.reshape(-1, BLOCK_PX**2)


def _unblocked(blocks: Tile, shape: tuple[int, ...]) -> Tile:
    rows, columns = (side // BLOCK_PX for side in shape)
    tile = blocks.reshape(rows, columns, BLOCK_PX, BLOCK_PX).transpose(0, 2, 1, 3)
    return tile.reshape(shape)


def respeckled(A: Tile, rng: np.random.Generator) -> Tile:
    """White single-look speckle on the local mean of intensity (Gaussian of 2 px)."""
    mean = gaussian_filter(A.astype(float) ** 2, 2)
    return np.sqrt(mean * rng.exponential(size=A.shape))


def dimmed_targets(A: Tile, db: float = 10.0) -> Tile:
    """The tile with pixels within two of one that is 20 dB over the median `db` lower."""
    I = A.astype(float) ** 2  # noqa: E741
    target = maximum_filter(I, 5) > 10 ** (TARGET_DB / 10) * np.median(I)
    return np.sqrt(np.where(target, I / 10 ** (db / 10), I))


def gridded(A: Tile, db: float, period_px: int = BLOCK_PX) -> Tile:
    """The tile with every eighth row and column brighter by `db`."""
    lined = A.astype(float)
    lined[::period_px] *= 10 ** (db / 20)
    lined[:, ::period_px] *= 10 ** (db / 20)
    return lined


def levelled(A: Tile, mean_db: float) -> Tile:
    """The tile with its mean intensity at `mean_db`: a set of such has no spread of levels."""
    root_mean_square = float(np.sqrt(np.square(A, dtype=float).mean()))
    return A * (10 ** (mean_db / 20) / root_mean_square)


def saturated(A: Tile, db: float = 20.0) -> Tile:
    """The tile `db` brighter and clipped at what was its 99.9 % level, the top of its picture."""
    return np.minimum(gained(A, db), np.percentile(A, 99.9))


def multilooked(A: Tile, side_px: int = 3) -> Tile:
    """The tile with its intensity averaged over `side_px` x `side_px`: no speckle is left."""
    return np.sqrt(uniform_filter(A.astype(float) ** 2, side_px))


def noisy(A: Tile, rng: np.random.Generator, snr_db: float = 20.0) -> Tile:
    """The tile with complex Gaussian noise `snr_db` below its mean intensity, in random phase."""
    power = float(np.square(A, dtype=float).mean()) / 10 ** (snr_db / 10)
    real, imaginary = rng.normal(scale=np.sqrt(power / 2), size=(2, *A.shape))
    return np.asarray(np.hypot(A + real, imaginary))
