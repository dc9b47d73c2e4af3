"""The null of random halves of scenes that a distance must exceed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

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
