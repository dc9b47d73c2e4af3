"""Homogeneous areas of an image: squares in which nothing but speckle varies.

A square of 16 blocks is homogeneous if both hold:

- its ENL, mean^2 / variance of intensity, is 0.8 to 1.5 times the nominal looks;
- the means m_k of its blocks differ no more than those of speckle do: ln m_k has a variance of
  about S1 / L, S1 the share of independent samples of a block (`looks.effective_samples`), so that
  15 s^2 L / S1 is below the 99.9 % quantile of chi-square with 15 degrees of freedom.

The first excludes texture and bright points, the second edges and gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sarhpc.measures.intensity import Array, require_image
from sarhpc.measures.looks import effective_samples

SIDE_PX = 32
"""Side of an area by default, px."""
ENL_SPAN = (0.8, 1.5)
"""Least and greatest ENL of an area over the nominal looks."""
_BLOCKS = 4
_CHI_SQUARE = 37.697
"""99.9 % quantile of chi-square with 15 degrees of freedom."""


@dataclass(frozen=True)
class HomogeneousArea:
    """A square of an image in which nothing but speckle varies."""

    row: int
    """First row, px."""
    column: int
    """First column, px."""
    side_px: int
    enl: float
    """Equivalent number of looks, mean^2 / variance of intensity."""
    level_db: float
    """Mean intensity, dB."""


def homogeneous_areas(
    intensity: ArrayLike, looks: float, correlation: Array, side_px: int = SIDE_PX
) -> list[HomogeneousArea]:
    """Areas of the grid of `side_px` x `side_px` squares that hold nothing but speckle, by row.

    Args:
        intensity: (H, W) power, linear, at least one square.
        looks: nominal number of looks of the speckle.
        correlation: (2, lags) speckle autocorrelation at lags 1, 2, ... px, azimuth and range (E4).
        side_px: side of the squares, px, a multiple of 4 and at least 16.

    Raises:
        ValueError: NaN, negative or constant intensity, an image smaller than a square, or another
            side or number of looks.
    """
    if side_px < 16 or side_px % _BLOCKS or not looks > 0:
        raise ValueError(
            f"areas of {side_px} px and {looks:g} looks: a multiple of 4 of at least 16 px, and "
            "looks above 0 are needed"
        )
    image = require_image(intensity, side_px)
    size = side_px // _BLOCKS
    rows, columns = (n // side_px for n in image.shape)
    blocks = image[: rows * side_px, : columns * side_px]
    blocks = blocks.reshape(rows, _BLOCKS, size, columns, _BLOCKS, size).transpose(0, 3, 1, 4, 2, 5)
    squares = blocks.reshape(rows, columns, -1)
    mean, variance = squares.mean(axis=2), squares.var(axis=2, ddof=1)
    means = blocks.mean(axis=(4, 5)).reshape(rows, columns, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        enl = mean**2 / variance
        spread = np.log(means).var(axis=2, ddof=1)
    n1, _ = effective_samples(correlation, size)
    even = (_BLOCKS**2 - 1) * spread * looks * n1 <= _CHI_SQUARE
    found = even & (enl >= ENL_SPAN[0] * looks) & (enl <= ENL_SPAN[1] * looks)
    return [
        HomogeneousArea(
            int(row) * side_px,
            int(column) * side_px,
            side_px,
            round(float(enl[row, column]), 3),
            round(float(10 * np.log10(mean[row, column])), 2),
        )
        for row, column in np.argwhere(found)
    ]
