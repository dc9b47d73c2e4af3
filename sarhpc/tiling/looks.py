"""Looks: how far averaging intensity reduces the speckle of a scene.

Averaging n independent pixels multiplies the looks by n, but neighbouring pixels of a radar image
share resolution cells. Their correlation is measured where the ground is homogeneous: on chips
whose own number of looks is near the nominal one, so that texture is excluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

CHIP_PX = 32
LEAST_CHIPS = 8
_HOMOGENEOUS = 0.8
_CHIPS_PER_WINDOW = 64

Chip = NDArray[np.float32]


def homogeneous_chips(
    intensity: NDArray[np.float32], known: NDArray[np.bool_], looks: float
) -> Iterator[Chip]:
    """Chips (32, 32) without gaps whose mean^2 / variance is at least 0.8 of the nominal looks."""
    rows, cols = (n // CHIP_PX for n in intensity.shape)
    corners = [(i * CHIP_PX, j * CHIP_PX) for i in range(rows) for j in range(cols)]
    for i, j in corners[:: max(len(corners) // _CHIPS_PER_WINDOW, 1)]:
        window = np.s_[i : i + CHIP_PX, j : j + CHIP_PX]
        chip = intensity[window].astype(np.float32)
        mean, spread = float(chip.mean(dtype=np.float64)), float(chip.var(dtype=np.float64))
        if known[window].all() and 0 < spread <= mean**2 / (_HOMOGENEOUS * looks):
            yield chip


def speckle_correlation(
    chips: Sequence[Chip], lags: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Autocorrelation of speckle intensity at lags 0 .. `lags` along rows and along columns.

    White speckle, [1], is assumed where fewer than LEAST_CHIPS chips are homogeneous; looks are
    then an upper bound.
    """
    lags = min(lags, CHIP_PX // 2)
    if len(chips) < LEAST_CHIPS or lags < 1:
        return np.ones(1), np.ones(1)
    stack = np.stack(chips).astype(np.float64)
    contrast = stack / stack.mean(axis=(1, 2), keepdims=True) - 1
    power = np.mean(contrast**2)
    along_rows = [np.mean(contrast[:, k:] * contrast[:, : CHIP_PX - k]) for k in range(lags + 1)]
    across = [np.mean(contrast[:, :, k:] * contrast[:, :, : CHIP_PX - k]) for k in range(lags + 1)]
    return np.array(along_rows) / power, np.array(across) / power
