"""Pixels that the gate judges: those of the 8-bit picture, of real tiles and of images alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.shards.radiometry import LINEAR_MODES, Normalisation, level_floor


def judged_pixels(codes: NDArray[np.uint8], law: Normalisation | None) -> NDArray[Any]:
    """The codes (H, W) of a picture where they are proportional to amplitude, else amplitude.

    Amplitude is relative to that of code 255.

    Args:
        codes: of the 8-bit picture.
        law: its normalisation; None, where that is not known, takes the codes as they are.
    """
    if law is None or law.mode in LINEAR_MODES:
        return codes
    levels = np.maximum(codes / np.float32(255), np.float32(level_floor(law.mode) or 0.0))
    return law.amplitudes(levels) / np.float32(law.top)
