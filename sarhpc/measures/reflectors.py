"""Isolated point reflectors of an image, for E7."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter

from sarhpc.measures.point_response import LEAST_CHIP_PX

NEAR_PX = 8
"""Around a peak its sidelobes are stronger than any far from it."""
NEAR_DB = 10.0
"""No other maximum within 8 px may come so close to the peak; the first sidelobe of an unweighted
band is 13.3 dB below it."""


@dataclass(frozen=True)
class Reflector:
    """A bright pixel that stands alone."""

    row: int
    col: int
    over_clutter_db: float
    """Power over the median power of the chip around it."""

    def chip(self, image: NDArray[np.generic], size: int) -> NDArray[np.generic]:
        """The (size, size) px of the image around it, itself at [size // 2, size // 2]."""
        top, left = self.row - size // 2, self.col - size // 2
        return image[top : top + size, left : left + size]


def isolated_reflectors(
    image: ArrayLike, chip_px: int = 64, over_clutter_db: float = 30.0, isolation_db: float = 20.0
) -> list[Reflector]:
    """Reflectors whose chips hold nothing else that is bright, the strongest first.

    A reflector is the brightest pixel of its chip, over the median power of the chip by a ratio (as
    a detector of constant false alarm rate that orders its cells: H. Rohling, IEEE Trans. AES 19(4)
    1983); all pixels of the chip that are more than 8 px away are lower by `isolation_db`, and so
    are other maxima within 8 px by 10 dB.

    Args:
        image: (H, W) complex or detected amplitude.
        chip_px: side of the chips, even, px.
        over_clutter_db: least power over the median; 30 dB are not reached by speckle, whose
            highest of 10^6 pixels is 13 dB over its median.
        isolation_db: least distance to the brightest pixel elsewhere in the chip.

    Raises:
        ValueError: 8-bit codes, pixels that are not finite, or an image smaller than a chip.
    """
    pixels = np.asarray(image)
    if pixels.dtype.itemsize == 1:
        raise ValueError("8-bit codes clip reflectors: give complex or 16-bit amplitude")
    if chip_px < LEAST_CHIP_PX or chip_px % 2:
        raise ValueError(f"chip_px={chip_px}: give an even number of {LEAST_CHIP_PX} or more")
    if pixels.ndim != 2 or min(pixels.shape) < chip_px:
        raise ValueError(f"image {pixels.shape} holds no chip of {chip_px} px")
    if not np.isfinite(pixels).all():
        raise ValueError("pixels are not finite: replace what is invalid by 0")
    power = np.abs(pixels).astype(np.float64) ** 2
    half = chip_px // 2
    brightest = power == maximum_filter(power, chip_px - 1, mode="constant")
    brightest[:half] = brightest[-half:] = False
    brightest[:, :half] = brightest[:, -half:] = False
    maxima = power == maximum_filter(power, 3)
    found = []
    for row, col in np.argwhere(brightest & (power > 0)):
        place = np.s_[row - half : row + half, col - half : col + half]
        if _stands_alone(power[place], maxima[place], isolation_db):
            over = float(power[row, col] / max(float(np.median(power[place])), 1e-300))
            found.append(Reflector(int(row), int(col), 10.0 * math.log10(over)))
    strong = [each for each in found if each.over_clutter_db >= over_clutter_db]
    return sorted(strong, key=lambda each: -each.over_clutter_db)


def _stands_alone(
    power: NDArray[np.float64], maxima: NDArray[np.bool_], isolation_db: float
) -> bool:
    half = power.shape[0] // 2
    away = np.abs(np.arange(power.shape[0]) - half)
    distance = np.maximum(away[:, None], away)
    others = power / power[half, half]
    far = float(others[distance > NEAR_PX].max())
    near = float(others[maxima & (distance > 0) & (distance <= NEAR_PX)].max(initial=0.0))
    return far <= 10 ** (-isolation_db / 10) and near <= 10 ** (-NEAR_DB / 10)
