"""Checks of what the measures of speckle are given: arrays of intensity, no codes, no gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarhpc.measures.linear_values import require_linear

Array = NDArray[np.float64]

MIN_PIXELS = 64


def require_intensity(intensity: ArrayLike, *, positive: bool = False) -> Array:
    """The intensity as float64, any shape, once it is known that it can be measured.

    Args:
        intensity: power, linear, any unit.
        positive: zeros are refused too, as their logarithm is.

    Raises:
        ValueError: fewer than 64 values, NaN or infinity, negative values, zeros where `positive`,
            or the same value everywhere.
    """
    I = np.asarray(intensity, dtype=np.float64)  # noqa: E741 - intensity is I in every SAR text
    where = f"intensity of shape {I.shape}"
    if I.size < MIN_PIXELS:
        raise ValueError(f"{where}: {I.size} values, at least {MIN_PIXELS} are needed")
    require_linear(I, "intensity")
    if positive and (bad := int((I == 0).sum())):
        raise ValueError(
            f"{where}: {bad} values are 0 and have no logarithm; leave out what has no data, and "
            "give codes the centre of their interval"
        )
    return I


def require_image(intensity: ArrayLike, side: int) -> Array:
    """The intensity (H, W) as float64, with at least `side` rows and columns.

    Raises:
        ValueError: not two-dimensional, too small, or as `require_intensity`.
    """
    I = require_intensity(intensity)  # noqa: E741
    if I.ndim != 2 or min(I.shape) < side:
        raise ValueError(
            f"intensity of shape {I.shape}: an image of {side} x {side} px or more is needed"
        )
    return I
