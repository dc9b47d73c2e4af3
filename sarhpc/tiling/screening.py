"""Screening of tiles for what is no ground: noise alone, interference, a clipped converter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NOISE_MARGIN_DB = 1.0
"""A tile whose mean power is within this of the noise floor holds no signal to speak of: a signal
6 dB below the noise would raise it by as much."""

_SEGMENTS = 8
_STRIPE_DB = 4.0
_NEIGHBOURS = 16
_LARGEST_STRIPE = 0.1
"""Share of the lines of a tile above which bright lines are the ground."""
_SPIKE_DB = 10.0
_SPIKE_SHARE = 0.05
_CLIPPED_SHARE = 0.002
_CLIPPED_LEAST = 8


def screen_tile(
    amplitude: NDArray[np.float32],
    valid: NDArray[np.bool_],
    field: NDArray[np.complex64] | None,
    noise_floor_db: float | None,
) -> str | None:
    """Why a tile shows no ground: `noise`, `interference`, `clipped`; None if it may.

    Args:
        amplitude: of the tile (H, W); where the noise floor is known its square is sigma0.
        valid: where there are data.
        field: complex pixels, where there are any.
        noise_floor_db: noise-equivalent sigma0, dB.
    """
    values = amplitude[valid]
    if values.size == 0:
        return None
    power = np.square(values.astype(np.float64))
    floor = -np.inf if noise_floor_db is None else noise_floor_db + NOISE_MARGIN_DB
    if power.mean() > 0 and 10 * np.log10(power.mean()) < floor:
        return "noise"
    top = values.max()
    at_top = int(np.count_nonzero(values >= top * np.float32(1 - 1e-6)))
    if at_top >= max(_CLIPPED_LEAST, _CLIPPED_SHARE * values.size):
        return "clipped"
    intensity = np.where(valid, amplitude, 0).astype(np.float64) ** 2
    if _has_stripe(intensity) or _has_stripe(intensity.T):
        return "interference"
    if field is not None and _has_spike(field):
        return "interference"
    return None


def _has_stripe(intensity: NDArray[np.float64]) -> bool:
    """Whether a few lines are brighter than their neighbours over the whole width of the tile.

    A wall or a row of scatterers is bright in some segments of a line, interference in all.
    """
    height, width = intensity.shape
    if height < 4 * _NEIGHBOURS or width < 2 * _SEGMENTS:
        return False
    each = width // _SEGMENTS
    segments = intensity[:, : each * _SEGMENTS].reshape(height, _SEGMENTS, each).mean(axis=2)
    level_db = 10 * np.log10(np.maximum(segments, 1e-30))
    around = _running_median(level_db)
    bright = (level_db - around > _STRIPE_DB).all(axis=1)
    return bool(0 < np.count_nonzero(bright) <= _LARGEST_STRIPE * height)


def _running_median(lines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median (H, S) of the lines around each, edges repeated."""
    padded = np.pad(lines, ((_NEIGHBOURS, _NEIGHBOURS), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1, axis=0)
    return np.asarray(np.median(windows, axis=-1))


def _has_spike(field: NDArray[np.complex64]) -> bool:
    """Whether a narrow part of the spectrum along an axis holds far more power than the rest."""
    for axis in (0, 1):
        spectrum = np.fft.fft(field, axis=axis)
        line = np.asarray(np.mean(spectrum.real**2 + spectrum.imag**2, axis=1 - axis), np.float64)
        lit = line[line > line.max() * 1e-9]
        if lit.size < 4 * _NEIGHBOURS:
            continue
        over = line > np.median(lit) * 10 ** (_SPIKE_DB / 10)
        if 0 < np.count_nonzero(over) <= _SPIKE_SHARE * line.size:
            return True
    return False


def floor_of(local: Any, row: float, col: float) -> float | None:
    """Noise-equivalent sigma0 at a stored pixel by what the scene knows of it, dB."""
    level = None if local is None else local.at(row, col).get("noise_floor_db")
    return None if level is None else float(level)
