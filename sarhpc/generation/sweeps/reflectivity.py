"""The reflectivity of a layout, estimated from one image with speckle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

Array = NDArray[np.float64]

FILTER = "Kuan et al., IEEE TPAMI 7(2), 1985"
"""Source of the filter, in the metadata of images."""


def estimated_reflectivity(intensity: NDArray[Any], looks: float, window_px: int) -> Array:
    """Mean backscatter (H, W) of an image of speckle: linear minimum mean square error.

    R = m + k (I - m) with mean m and squared coefficient of variation c2 of the window around each
    pixel, k = (1 - 1 / (L c2)) / (1 + 1 / L), not below 0. It keeps the mean level. Where only
    speckle varies it is the mean of the window; edges and bright points keep part of their
    contrast and of their speckle. The image continues as its mirror image beyond the borders.

    Args:
        intensity: (H, W) power, linear.
        looks: L, of the speckle in it.
        window_px: side of the window, odd.
    """
    power = np.asarray(intensity, np.float64)
    mean = uniform_filter(power, window_px, mode="reflect")
    variance = np.maximum(uniform_filter(power**2, window_px, mode="reflect") - mean**2, 0)
    # 1 - 1 / (L c2) without dividing by a variance of 0.
    excess = variance - mean**2 / looks
    share = np.divide(excess, variance, out=np.zeros_like(power), where=excess > 0)
    return np.maximum(mean + share / (1 + 1 / looks) * (power - mean), 0)
