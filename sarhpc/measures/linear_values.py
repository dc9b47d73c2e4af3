"""The check that every measure of amplitude or intensity makes first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def require_linear(values: NDArray[np.floating[Any]], quantity: str) -> None:
    """Raise ValueError unless `values` can be linear amplitude or intensity that holds speckle.

    Args:
        values: any shape, not empty.
        quantity: what they are, for the message.

    Raises:
        ValueError: NaN or infinity, negative values, or the same value everywhere.
    """
    where = f"{quantity} of shape {values.shape}"
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise ValueError(f"{where}: {bad} values are NaN or infinite; leave out what has no data")
    if low < 0:
        bad = int((values < 0).sum())
        raise ValueError(f"{where}: {bad} values are negative; give it linear, not dB or phase")
    if high - low <= 1e-9 * high:
        raise ValueError(f"{where}: constant, {low:g} everywhere; leave out what has one value")
