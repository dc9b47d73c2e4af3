"""Quality of tiles, and the reasons for which they are rejected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.tiling.config import TileConfig

TILE_REASONS = (
    "outside",
    "nodata",
    "nonfinite",
    "no_signal",
    "saturated",
    "optical_missing",
    "condition_missing",
    "unreadable",
)
"""Reasons for which a planned tile is rejected, as counted in the ledger."""

SCENE_REASONS = (
    "unreadable",
    "uncalibrated",
    "upsampling",
    "too_small",
    "nodata",
    "no_signal",
    "no_partner",
)
"""Reasons for which a whole scene is not planned."""


@dataclass(frozen=True)
class TileQuality:
    """Measures on which a tile is accepted or rejected."""

    valid_fraction: float
    """Share of pixels with data."""
    nonfinite_fraction: float
    """Share of pixels lost to NaN or infinity in data declared valid."""
    saturated_fraction: float
    """Share of valid pixels above the amplitude of code 255."""
    mean_level: float
    """Mean amplitude of valid pixels over the amplitude of code 255."""
    flat: bool
    """Whether all valid pixels are equal, which no radar image shows."""


def tile_quality(
    amplitude: NDArray[np.float32],
    valid: NDArray[np.bool_],
    nonfinite: NDArray[np.bool_] | None,
    top: float,
) -> TileQuality:
    """Measures of one tile (H, W). Zero inside valid data is radar shadow, and counts as data."""
    values = amplitude[valid] if not valid.all() else amplitude
    empty = values.size == 0
    return TileQuality(
        valid_fraction=values.size / amplitude.size,
        nonfinite_fraction=0.0 if nonfinite is None else float(nonfinite.mean()),
        saturated_fraction=0.0 if empty else np.count_nonzero(values > top) / values.size,
        mean_level=0.0 if empty else float(values.mean(dtype=np.float64)) / top,
        flat=empty or bool(values.min() == values.max()),
    )


def reject_reason(quality: TileQuality, cfg: TileConfig) -> str | None:
    """Why a tile is rejected, one of TILE_REASONS; None for a good tile."""
    if quality.valid_fraction < cfg.min_valid:
        lost = 1 - quality.valid_fraction
        return "nonfinite" if quality.nonfinite_fraction > lost / 2 else "nodata"
    if quality.flat or quality.mean_level < cfg.min_signal:
        return "no_signal"
    if quality.saturated_fraction > cfg.max_saturated:
        return "saturated"
    return None
