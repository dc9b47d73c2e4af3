"""Amplitude of a tile as the measures take it: checked, and its logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.linear_values import require_linear

Array = NDArray[np.float64]

FLOOR_DB = -40.0
"""Level below the median of a tile at which its logarithm is cut off: ln 0 must stay finite."""


def checked_amplitude(amplitude: NDArray[Any], least_px: int) -> NDArray[np.floating[Any]]:
    """The amplitude (H, W) itself, as floating-point numbers.

    Args:
        amplitude: (H, W), linear, not in dB; range along columns.
        least_px: rows and columns that the measure needs.

    Raises:
        ValueError: complex, not two-dimensional, too small, with NaN, infinite or negative values,
            or of one value.
    """
    if np.iscomplexobj(amplitude):
        raise ValueError("the tile is complex; pass its amplitude, abs(tile)")
    if amplitude.ndim != 2:
        raise ValueError(f"the tile has shape {amplitude.shape}; pass one tile (H, W)")
    if min(amplitude.shape) < least_px:
        raise ValueError(
            f"the tile has {amplitude.shape[0]} x {amplitude.shape[1]} px; this measure needs "
            f"at least {least_px} x {least_px}"
        )
    A = amplitude if amplitude.dtype.kind == "f" else amplitude.astype(np.float64)
    require_linear(A, "amplitude")
    return A


def log_amplitude(amplitude: NDArray[Any], least_px: int) -> NDArray[np.floating[Any]]:
    """ln(A / median A) (H, W), at least FLOOR_DB (-40 dB); a gain of the tile does not change it.

    Raises:
        ValueError: see `checked_amplitude`; or more than half of the pixels are 0.
    """
    A = checked_amplitude(amplitude, least_px)
    middle = A.ravel()[: A.size].copy()
    middle.partition(A.size // 2)
    median = middle[A.size // 2]
    if median <= 0:
        raise ValueError("more than half of the pixels are 0; leave out tiles mostly without data")
    lowest = A.dtype.type(10 ** (FLOOR_DB / 20))
    return np.asarray(np.log(np.maximum(A / median, lowest)))
