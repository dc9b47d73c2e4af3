"""E4: autocorrelation of speckle along azimuth and along range.

For fully developed speckle the autocorrelation of intensity is rho(d) = |r(d)|^2, with r the
inverse Fourier transform of |W|^2, the power response of the processed band, over its value at 0
(Vachon and Raney, IEEE TGRS 27(6), 1989: the speckle of a uniform scene shows the transfer function
of the system). L averaged looks leave rho as it is and divide the variance by L.

What the level of the scene does is taken out in blocks of 16 px, each divided by its mean m. With
N = 256, u = m - 1 and C(d) = rho(d) / L, the mean product of two pixels d apart is, to first order
in 1/N,

    A(d) = E[I_i I_j / m^2] = (1 + C(d)) (1 + 3 E[u^2]) - 2 E[I_i I_j u]
         = (1 + C(d)) (1 + 3 S/L) - 4 S/L - 4 t(d) / L^2,
    S = 1/N sum_k rho(k),    t(d) = 1/N sum_k r(d) r(k) r(k - d),

t(d) from the third cumulant 2 r_ij r_jk r_ki / L^2 of three pixels. A(far), where rho is 0, is
1 - S/L and not 1: dividing by the mean of a window makes distant pixels anticorrelated, and an
autocorrelation counted from 1 reads low (0.39 instead of 0.41 with a box of 15 px). Counted from
A(far),

    (A(d) - A(far)) / (A(0) - A(far)) = rho(d) - 4/L (t(d) - rho(d) S),

and the last term, 0.006 at lag 1 for one look and a band of 0.8, is computed and added back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sarhpc.measures.intensity import Array, require_image

LAGS = 5
BLOCK_PX = 16
FAR_LAGS_PX = (6, 9)
"""Lags that count as uncorrelated: beyond the main lobe of any band of at least 0.4."""
_APART = np.abs(np.arange(BLOCK_PX)[:, None] - np.arange(BLOCK_PX))
"""Lag of any two rows, or columns, of a block."""


def lag_products(intensity: ArrayLike) -> Array:
    """Mean products (2, 7) of pixels of one block: far apart, at lag 0, and at lags 1 to 5.

    The first row is along azimuth, the second along range. Products are of I / m, m the mean of the
    block of 16 px; blocks overlap by half along the diagonal. The products of a set of tiles are
    the weighted mean of theirs.

    Args:
        intensity: (H, W) power, linear, at least 32 x 32 px, range along columns.

    Raises:
        ValueError: NaN, negative, constant, too small, or a block without any power.
    """
    ratios = _ratios(require_image(intensity, 2 * BLOCK_PX))
    by_row, by_column = ratios.reshape(BLOCK_PX, -1), ratios.reshape(-1, BLOCK_PX)
    pairs = BLOCK_PX * np.arange(BLOCK_PX, BLOCK_PX - LAGS - 1, -1) * ratios.shape[1]
    near = [
        [np.trace(gram, lag) / pairs[lag] for lag in range(LAGS + 1)]
        for gram in (by_row @ by_row.T, by_column.T @ by_column)
    ]
    within = [_pairs_within(ratios, lag) for lag in (FAR_LAGS_PX[0] - 1, FAR_LAGS_PX[1])]
    sums, numbers = np.diff(within, axis=0)[0]
    return np.array([[sums / numbers, *axis] for axis in near])


def _pairs_within(ratios: Array, lag: int) -> tuple[float, float]:
    """Sum of the products of pixels no more than `lag` rows and columns apart, and their number.

    Args:
        ratios: (16, B, 16): rows, blocks, columns.
        lag: px.
    """
    near = np.less_equal(_APART, lag).astype(np.float64)
    along_range = ratios.reshape(-1, BLOCK_PX) @ near
    # Of any two rows; those that are near each other count.
    rows = ratios.reshape(BLOCK_PX, -1) @ along_range.reshape(BLOCK_PX, -1).T
    return float((near * rows).sum()), float(near.sum() ** 2 * ratios.shape[1])


def speckle_autocorrelation(products: Array, looks: float = 1.0) -> Array:
    """Autocorrelation (2, 5) of intensity speckle at lags 1 to 5 px, azimuth first, then range.

    1 is full correlation, 0 none. The expectation is rho(d) of the processed band for speckle of
    any number of looks, whatever the block; what is left of the scene inside 16 px adds to it.

    Args:
        products: (2, 7), from `lag_products` or the weighted mean over tiles.
        looks: number of looks, for the term of order 1/N alone.

    Raises:
        ValueError: products without contrast, or `looks` not above 0.
    """
    far, zero = float(products[0, 0]), float(products[0, 1])
    if not (np.isfinite(products).all() and zero > far):
        raise ValueError(f"products at lag 0 ({zero:g}) must exceed those far apart ({far:g})")
    if not looks > 0:
        raise ValueError(f"looks is {looks:g}: give the number of looks, above 0")
    counted = (products[:, 1:] - far) / (zero - far)
    rho = counted
    for _ in range(3):
        rho = counted + _block_bias(rho) / looks
    return rho[:, 1:]


def autocorrelation_of_band(weights: ArrayLike, lags: int = LAGS) -> Array:
    """Autocorrelation (lags,) of intensity speckle at lags 1, 2, ... px, in theory.

    Args:
        weights: (n,) amplitude weights of the band of one axis, in the order of `fftfreq`.
        lags: number of lags, below n.
    """
    r = np.fft.ifft(np.abs(np.asarray(weights)) ** 2)
    rho: Array = np.abs(r[1 : lags + 1] / r[0]) ** 2
    return rho


def _ratios(image: Array) -> Array:
    """I / m (16, B, 16), rows, blocks, columns: rows first, so that products are of two matrices.

    Raises:
        ValueError: a block without any power.
    """
    tilings = [_tiling(image[start:, start:]) for start in (0, BLOCK_PX // 2)]
    ratios = np.empty((BLOCK_PX, sum(one.shape[0] * one.shape[2] for one in tilings), BLOCK_PX))
    first = empty = 0
    for blocks in tilings:
        mean = blocks.mean((1, 3), keepdims=True)
        empty += int((mean == 0).sum())
        after = first + mean.size
        place = ratios[:, first:after].reshape(BLOCK_PX, len(blocks), -1, BLOCK_PX)
        with np.errstate(invalid="ignore"):
            np.divide(blocks.swapaxes(0, 1), mean.swapaxes(0, 1), out=place)
        first = after
    if empty:
        raise ValueError(
            f"{empty} of {first} blocks of {BLOCK_PX} px are 0 everywhere: leave out tiles with "
            "gaps"
        )
    return ratios


def _tiling(image: Array) -> Array:
    """Blocks as a view (block row, row, block column, column) of an image."""
    rows, columns = (side // BLOCK_PX for side in image.shape)
    cut = image[: rows * BLOCK_PX, : columns * BLOCK_PX]
    return cut.reshape(rows, BLOCK_PX, columns, BLOCK_PX)


def _block_bias(rho: Array) -> Array:
    """4 (t(d) - rho(d) S) of (2, 6) `rho` at lags 0 to 5, for a separable band, r >= 0."""
    at_lag = np.zeros((2, BLOCK_PX))
    at_lag[:, : LAGS + 1] = np.sqrt(np.maximum(rho, 0.0))
    r = at_lag[:, _APART]
    own = (r * r).mean((1, 2))
    # Mean over pairs at each lag of 1/n sum_k r_ij r_jk r_ki, n the side of the block.
    triples = (r * (r @ r) / BLOCK_PX).reshape(2, -1) @ _MEAN_AT_LAG.T
    bias: Array = 4 * (triples - rho * own[:, None]) * own[::-1, None]
    return bias


def _mean_at_lag() -> Array:
    """Weights (6, 256) of the pairs of a row of a block that are 0 to 5 px apart."""
    at_lag = _APART.ravel() == np.arange(LAGS + 1)[:, None]
    return np.asarray(at_lag / at_lag.sum(1, keepdims=True))


_MEAN_AT_LAG = _mean_at_lag()
