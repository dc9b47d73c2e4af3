"""Radar pictures as they are displayed to people, and given to models that read pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.shards.radiometry import LINEAR_MODES

STRETCH = "square root of linear amplitude, logarithmic codes as they are"
"""What `displayed` does, for records."""


def displayed(codes: NDArray[np.uint8], meta: Mapping[str, Any]) -> NDArray[np.uint8]:
    """8-bit codes (H, W) as they are shown, by the law of the picture in `meta`.

    Codes of a logarithm are shown as they are, those of amplitude with the square-root stretch
    usual for SAR images.
    """
    law = meta.get("normalisation")
    if isinstance(law, Mapping) and law.get("mode") not in LINEAR_MODES:
        return codes
    return np.round(255.0 * np.sqrt(codes / 255.0)).astype(np.uint8)
