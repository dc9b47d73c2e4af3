"""Defects that diffusion or processing give to a tile, and the null that a distance must exceed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter


def gained(A: np.ndarray, db: float) -> np.ndarray:
    return A * 10 ** (db / 20)


def blurred(A: np.ndarray, sigma_px: float = 0.6) -> np.ndarray:
    return np.sqrt(gaussian_filter(A.astype(float) ** 2, sigma_px))


def shuffled(A: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pixels in random order within blocks of 8 x 8."""
    rows, columns = (side // 8 for side in A.shape)
    blocks = A.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3).reshape(-1, 64)
    blocks = rng.permuted(blocks, axis=1).reshape(rows, columns, 8, 8)
    return blocks.transpose(0, 2, 1, 3).reshape(A.shape)


def block_shuffled(A: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole blocks of 8 x 8 pixels in random order."""
    rows, columns = (side // 8 for side in A.shape)
    blocks = A.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
    blocks = rng.permutation(blocks).reshape(rows, columns, 8, 8)
    return blocks.transpose(0, 2, 1, 3).reshape(A.shape)


def respeckled(A: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White single-look speckle on the local mean of intensity (Gaussian of 2 px)."""
    mean = gaussian_filter(A.astype(float) ** 2, 2)
    return np.sqrt(mean * rng.exponential(size=A.shape))


def dimmed_targets(A: np.ndarray, db: float = 10.0) -> np.ndarray:
    """Pixels within two of one that is 20 dB over the median, `db` lower."""
    I = A.astype(float) ** 2  # noqa: E741
    target = maximum_filter(I, 5) > 100 * np.median(I)
    return np.sqrt(np.where(target, I / 10 ** (db / 10), I))


def gridded(A: np.ndarray, db: float, period_px: int = 8) -> np.ndarray:
    """Every eighth row and column brighter by `db`."""
    lined = A.astype(float)
    lined[::period_px] *= 10 ** (db / 20)
    lined[:, ::period_px] *= 10 ** (db / 20)
    return lined


Sets = Mapping[str, Any]


def against_null(
    distance: Callable[[Any, Any], float],
    real: np.ndarray,
    generated: Sets,
    scenes: np.ndarray,
    draws: int = 100,
) -> tuple[float, dict[str, float]]:
    """95 % of the null, and the median of each set's |distance| over it.

    Args:
        distance: of features (N, ...) of one set from those of another.
        real: features, tile by tile.
        generated: name -> features of the same tiles with a defect.
        scenes: (N,) scene of each tile; both halves of a draw share none.
        draws: random halves of the scenes.
    """
    rng = np.random.default_rng(0)
    null: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in generated}
    for _ in range(draws):
        order = rng.permutation(np.unique(scenes))
        one = np.isin(scenes, order[: len(order) // 2])
        null.append(abs(distance(real[one], real[~one])))
        for name, features in generated.items():
            found[name].append(abs(distance(features[one], real[~one])))
    bound = float(np.quantile(null, 0.95))
    return bound, {name: float(np.median(of)) / bound for name, of in found.items()}
