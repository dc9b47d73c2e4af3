"""E1: equivalent number of looks (ENL), by three estimators.

Moments and log-cumulants are for what is known to be uniform; the mode of the local ENL is for
scenes. In a window of n = K x K pixels of L-look speckle with autocorrelation rho, let p1 = I - 1
and p2 = I^2 - 2 (1 + 1/L) I + 1 + 1/L be the first orthogonal polynomials of the gamma law and u, w
their means over the window. Then Var u = S1/L and Var w = 2 (L + 1)/L^3 S2 with

    S1 = 1/N1 = 1/n^2 sum_ij rho_ij,    S2 = 1/N2 = 1/n^2 sum_ij rho_ij^2,

as the correlation of the k-th polynomial of two pixels is rho^k. N1 and N2 are the effective
numbers of independent samples of mean and variance (81 pixels of a band of 0.8 are 26 and 48). The
local ENL = mean^2 / variance has

    ln ENL = ln L - L w + (L + 1) u^2 + L^2 w^2 / 2 + 2 L u w + ...,
    E[ln ENL] = ln L + (1 + 1/L)(S1 + S2) + O(1/N^2).

ln ENL is nearly symmetric (skewness -0.3 for L = 1 and K = 9, less for more looks), so the mode of
its density is at its mean, and is divided by exp((1 + 1/L)(S1 + S2)). What remains at K = 9 is
below 1 % for a band of 0.8 and any L; for a band of 0.5 (N2 = 21) it is -4 % for one look and below
2 % for more.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d

from sarhpc.measures.intensity import Array, require_image, require_intensity
from sarhpc.measures.log_cumulants import inverse_trigamma

WINDOW_PX = 9
BIN = 0.02
LN_EDGES = np.arange(-250, 351) * BIN
"""Bins of ln ENL, from ENL 0.007 to 1100."""
SMOOTHING = 0.15
"""Standard deviation of the kernel of the density of ln ENL, half that of single-look windows."""


def moment_enl(intensity: ArrayLike) -> float:
    """ENL = mean(I)^2 / var(I) of a uniform area of any shape; 1 for single-look speckle.

    Raises:
        ValueError: fewer than 64 values, NaN, negative or constant intensity.
    """
    I = require_intensity(intensity)  # noqa: E741
    return float(I.mean() ** 2 / I.var(ddof=1))


def log_cumulant_enl(intensity: ArrayLike) -> float:
    """ENL with psi_1(ENL) = var(ln I) (Nicolas, 2002) of a uniform area of any shape.

    Bright points weigh less here than in `moment_enl`, dark gaps more.

    Raises:
        ValueError: fewer than 64 values, NaN, zero, negative or constant intensity.
    """
    I = require_intensity(intensity, positive=True)  # noqa: E741
    return inverse_trigamma(float(np.log(I).var(ddof=1)))


def local_enl_histogram(intensity: ArrayLike, window: int = WINDOW_PX) -> Array:
    """Fractions (600,) of the windows of an image per bin of ln ENL; see `LN_EDGES`.

    All `window` x `window` windows wholly inside count; those beyond the bins count at the ends.
    The histogram of a set of tiles is the weighted mean of theirs.

    Args:
        intensity: (H, W) power, linear.
        window: side of the window, px, odd.

    Raises:
        ValueError: NaN, negative or constant intensity, windows of zeros, a side below two windows.
    """
    if window < 3 or window % 2 == 0:
        raise ValueError(f"window of {window} px: odd and at least 3 is needed")
    I = require_image(intensity, 2 * window)  # noqa: E741
    mean = _window_mean(I, window)
    if empty := int((mean <= 0).sum()):
        raise ValueError(
            f"{empty} of {mean.size} windows of {window} px are 0 everywhere: leave out tiles with "
            "gaps"
        )
    variance = np.maximum(_window_mean(I * I, window) - mean**2, 1e-12 * mean**2)
    ln_enl = np.log(mean**2 / variance)
    bins = LN_EDGES.size - 1
    place = np.clip((ln_enl - LN_EDGES[0]) / BIN, 0, bins - 1).astype(np.intp)
    return np.asarray(np.bincount(place.ravel(), minlength=bins) / place.size)


def enl_mode(histogram: Array, acf: Array, window: int = WINDOW_PX) -> float:
    """ENL of the most frequent windows of a scene, corrected for what a finite window adds.

    A continuous estimate: the maximum of the density of ln ENL by a Gaussian kernel of 0.15, its
    place between bins by a parabola. Texture and edges inside most windows make it read low. Below
    1, where no uniform speckle is, the correction for one look is kept.

    Args:
        histogram: (600,), from `local_enl_histogram` or the weighted mean over tiles.
        acf: (2, lags) speckle autocorrelation at lags 1, 2, ... px, azimuth and range (E4).
        window: side of the windows, px.

    Raises:
        ValueError: an empty histogram, or one whose mode is at its ends.
    """
    mode = _mode(histogram)
    excess = sum(1.0 / n for n in effective_samples(acf, window))
    looks = max(mode, 1.0)
    for _ in range(50):
        looks = mode * math.exp(-excess * (1 + 1 / max(looks, 1.0)))
    return looks


def effective_samples(acf: Array, window: int = WINDOW_PX) -> tuple[float, float]:
    """N1 and N2: numbers of independent pixels with the same variance of mean and of variance.

    Args:
        acf: (2, lags) speckle autocorrelation at lags 1, 2, ... px, taken as separable.
        window: side of the window, px.

    Raises:
        ValueError: NaN, or not (2, lags).
    """
    if acf.ndim != 2 or len(acf) != 2 or not np.isfinite(acf).all():
        raise ValueError(f"autocorrelation of shape {acf.shape}: finite (2, lags) is needed")
    lags = np.arange(1, min(acf.shape[1], window - 1) + 1)
    rho = np.clip(acf[:, : lags.size], 0, 1)
    # Of window^2 pairs on an axis, `window` are the same pixel, and 2 (window - d) d px apart.
    s1, s2 = ((1 + 2 * rho**k @ (1 - lags / window)) / window for k in (1, 2))
    return 1 / float(s1.prod()), 1 / float(s2.prod())


def _mode(histogram: Array) -> float:
    density = gaussian_filter1d(histogram, SMOOTHING / BIN, mode="constant")
    peak = int(np.argmax(density))
    if not 0 < peak < density.size - 1 or not density[peak] > 0:
        raise ValueError(
            "the histogram of local ENL is empty or has its maximum at its ends: there is no "
            "speckle of ENL 0.007 to 1100"
        )
    before, top, after = np.log(density[peak - 1 : peak + 2])
    offset = 0.5 * (before - after) / (before - 2 * top + after)
    return math.exp(LN_EDGES[peak] + BIN * (0.5 + offset))


def _window_mean(image: Array, window: int) -> Array:
    # Sums of each window alone: with running sums, a bright target leaves its rounding behind.
    return _window_sum(_window_sum(image, window).T, window).T / window**2


def _window_sum(image: Array, window: int) -> Array:
    """Sums of `window` rows, from sums of 1, 2, 4, ... rows."""
    rows = len(image) - window + 1
    power, size, total, taken = image, 1, None, 0
    while size <= window:
        if window & size:
            part = power[taken : taken + rows]
            total = part if total is None else total + part
            taken += size
        power, size = power[:-size] + power[size:], 2 * size
    assert total is not None
    return total
