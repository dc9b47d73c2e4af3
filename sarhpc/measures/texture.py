"""E6: texture by gray-level co-occurrence, direction by direction.

Levels are 32 steps of 1.5 dB around the median of the tile, so that a gain changes no texture.
Source: Haralick, Shanmugam & Dinstein, IEEE Trans. SMC 3(6) 1973: symmetric matrices, distances
counted along rows and columns, a diagonal step of 2 px being two rows and two columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.amplitude import Array, log_amplitude

LEVELS = 32
STEP_DB = 1.5
DISTANCES_PX = (1, 2, 4)
DIRECTIONS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"range": (0, 1), "diagonal": (1, 1), "azimuth": (1, 0), "antidiagonal": (1, -1)}
)
"""Direction -> rows and columns of one step."""
FEATURES = ("contrast", "homogeneity", "energy", "correlation", "entropy")
LEAST_PX = 32


def measure_texture(amplitude: NDArray[Any]) -> Array:
    """Features (4, 3, 5) of a tile (H, W): DIRECTIONS x DISTANCES_PX x FEATURES.

    Raises:
        ValueError: fewer than 32 x 32 px, or see `log_amplitude`.
    """
    codes = quantise(amplitude)
    return np.array(
        [
            [haralick(cooccurrence(codes, d * row, d * column)) for d in DISTANCES_PX]
            for row, column in DIRECTIONS.values()
        ]
    )


def quantise(amplitude: NDArray[Any]) -> NDArray[np.intp]:
    """Gray levels (H, W), 0 to 31, in steps of 1.5 dB; the median lies between 15 and 16."""
    level = log_amplitude(amplitude, LEAST_PX) * float(20.0 / np.log(10.0) / STEP_DB)
    codes = np.floor(level, out=level).astype(np.intp)
    codes += LEVELS // 2
    return np.asarray(np.clip(codes, 0, LEVELS - 1, out=codes))


def cooccurrence(codes: NDArray[np.intp], rows: int, columns: int) -> Array:
    """Symmetric co-occurrence matrix (32, 32), sum 1, of pixels `rows`, `columns` apart.

    Raises:
        ValueError: the step leaves no pair inside the tile.
    """
    height, width = codes.shape
    if rows < 0 or rows >= height or abs(columns) >= width:
        raise ValueError(f"a step of {rows}, {columns} px leaves no pair in {height} x {width} px")
    here = codes[: height - rows, max(0, -columns) : width - max(0, columns)]
    there = codes[rows:, max(0, columns) : width + min(0, columns)]
    pairs = np.bincount((here * LEVELS + there).ravel(), minlength=LEVELS**2)
    matrix = pairs.reshape(LEVELS, LEVELS).astype(np.float64)
    return np.asarray((matrix + matrix.T) / (2.0 * pairs.sum()))


def haralick(matrix: Array) -> tuple[float, ...]:
    """FEATURES of a symmetric co-occurrence matrix (32, 32) of sum 1; entropy in nats.

    contrast sum p (i-j)^2; homogeneity sum p / (1 + (i-j)^2); energy sqrt(sum p^2); correlation
    sum p (i-m)(j-m) / variance (1 where there is one level only); entropy -sum p ln p.
    """
    level = np.arange(LEVELS, dtype=np.float64)
    square = np.square(level[:, None] - level)
    marginal = matrix.sum(0)
    centred = level - marginal @ level
    variance = float(marginal @ centred**2)
    held = matrix[matrix > 0]
    return (
        float((matrix * square).sum()),
        float((matrix / (1.0 + square)).sum()),
        float(np.sqrt(np.square(matrix).sum())),
        float(centred @ matrix @ centred) / variance if variance > 1e-15 else 1.0,
        -float(held @ np.log(held)),
    )


def texture_distance(
    generated: Array,
    real: Array,
    generated_weights: Array | None = None,
    real_weights: Array | None = None,
) -> Array:
    """Distance (4,) per direction: root mean square of (mean_G - mean_R) / spread_R.

    The mean square is over the features of the direction; the spread is the standard deviation over
    the real tiles. The four apart tell a defect along one axis from one along both; `overall` is
    the distance of two sets in one number.

    Args:
        generated: (N, 4, 3, 5), a row of `measure_texture` per tile.
        real: (M, 4, 3, 5), M >= 2.
        generated_weights: (N,), sum 1; equal if None.
        real_weights: (M,), sum 1; equal if None.

    Raises:
        ValueError: fewer than two real tiles, or real tiles that are all alike.
    """
    if len(real) < 2 or len(generated) < 1:
        raise ValueError(f"{len(generated)} generated and {len(real)} real tiles; pass 1 and 2")
    centre = np.average(real, axis=0, weights=real_weights)
    spread = np.sqrt(np.average(np.square(real - centre), axis=0, weights=real_weights))
    if not (spread > 0).all():
        # A resampling of one tile alone has no spread of its own.
        spread = real.std(axis=0)
    if not (spread > 0).all():
        raise ValueError("the real tiles are all alike in a texture; pass different tiles")
    shift = (np.average(generated, axis=0, weights=generated_weights) - centre) / spread
    return np.asarray(np.sqrt(np.square(shift).mean((1, 2))))


def overall(distance: Array) -> float:
    """Root mean square of the distances (4,) of the directions."""
    return float(np.sqrt(np.square(distance).mean()))
