"""Quality of tiles, and the reasons for which they are rejected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.shards.radiometry import Normalisation
from sarhpc.tiling.config import TileConfig

TILE_REASONS = (
    "outside",
    "nodata",
    "nonfinite",
    "no_signal",
    "saturated",
    "noise",
    "interference",
    "clipped",
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
    "no_slant",
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
    """Mean amplitude of valid pixels over the amplitude of code 255, or its level in the window."""
    flat: bool
    """Whether all valid pixels are equal, which no radar image shows."""
    clipped_power: float | None = None
    """Share of the power that the window of the archive clips; None without one."""


def tile_quality(
    amplitude: NDArray[np.float32],
    valid: NDArray[np.bool_],
    nonfinite: NDArray[np.bool_] | None,
    top: float,
    window: Normalisation | None = None,
) -> TileQuality:
    """Measures of one tile (H, W). Zero inside valid data is radar shadow, and counts as data.

    Args:
        amplitude: of the tile.
        valid: where there are data.
        nonfinite: where data declared valid are NaN or infinite.
        top: amplitude of code 255.
        window: the window of the archive, in which the level and the power clipped are measured.
    """
    values = amplitude[valid] if not valid.all() else amplitude
    empty = values.size == 0
    mean = 0.0 if empty else float(values.mean(dtype=np.float64))
    level, clipped = mean / top, None
    if window is not None:
        level = float(window.levels(np.asarray(mean, np.float32)))
        clipped = _power_clipped(values, top)
    return TileQuality(
        valid_fraction=values.size / amplitude.size,
        nonfinite_fraction=0.0 if nonfinite is None else float(nonfinite.mean()),
        saturated_fraction=0.0 if empty else np.count_nonzero(values > top) / values.size,
        mean_level=level,
        flat=empty or bool(values.min() == values.max()),
        clipped_power=clipped,
    )


def _power_clipped(values: NDArray[np.float32], top: float) -> float:
    """Share of the power above the amplitude `top`."""
    power = np.square(values.astype(np.float64))
    total = float(power.sum())
    return float(np.maximum(power - top**2, 0).sum()) / total if total else 0.0


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
