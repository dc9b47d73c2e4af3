"""What cannot be linear amplitude or intensity is refused, with how many values are at fault."""

from __future__ import annotations

import numpy as np
import pytest

from sarhpc.measures.linear_values import require_linear


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ([np.nan, np.inf, 1.0], r"shape \(6,\): 2 values are NaN or infinite"),
        ([-np.inf, 1.0, 2.0], r"shape \(6,\): 1 values are NaN or infinite"),
        ([-0.5, 0.0, 0.5], r"shape \(6,\): 1 values are negative"),
        ([-30.0, -0.5, 0.0], r"shape \(6,\): 2 values are negative"),
        ([3.0, 3.0, 3.0], r"constant, 3 everywhere"),
        ([3.0, 3.0, 3.0 + 2e-9], r"constant, 3 everywhere"),
    ],
)
def test_the_fault_is_counted(spoiled: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_linear(np.array([*spoiled, 3.0, 3.0, 3.0]), "intensity")


def test_zeros_among_others_and_small_contrast_are_linear() -> None:
    require_linear(np.array([0.0, 0.0, 1e-30]), "intensity")
    require_linear(np.array([3.0, 3.0 + 4e-9]), "intensity")


def test_zeros_alone_are_constant() -> None:
    with pytest.raises(ValueError, match=r"amplitude of .*: constant, 0 everywhere"):
        require_linear(np.zeros((2, 2)), "amplitude")
