"""One dB window for all scenes of an archive, from the histograms of their levels.

The top is the lowest level above which less than 0.1 % of the archive's power is lost by clipping,
sum(max(I - I_top, 0)) / sum(I); below the low end lies 1 % of the pixels. Histograms are counted in
integers, so that the window depends on neither the order of the scenes nor the number of workers.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

MOST_CLIPPED = 1e-3
"""Share of the power that clipping at the top may lose."""

LOW_SHARE = 0.01
"""Share of the pixels below the low end."""

STEP_DB = 0.1
_FIRST_DB = -150.0
_BINS = 3000
_FINE = 10
"""Bins of the survey of one scene to a bin of the archive: the gain of a scene, known when it has
been surveyed, shifts its levels by any fraction of a bin."""

_LEAST_WIDTH_DB = 6.0
"""Of a window: an archive of one level has a window of zero width, which is widened downwards."""

OUTLIER_GAP_DB = 25.0
"""A scene whose own window ends this far beyond that of every other scene has no part in it."""

_LEAST_SCENES = 4
"""With fewer scenes nobody can say which of them is the outlier."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class LevelCounts:
    """Pixels of a scene by level: `counts[i]` of level `_FIRST_DB + (first + i) * STEP_DB`."""

    first: int
    counts: NDArray[np.int64]

    def dense(self) -> Counts:
        """Counts (BINS,) over all levels."""
        every = np.zeros(_BINS, np.int64)
        every[self.first : self.first + len(self.counts)] = self.counts
        return every


class LevelTally:
    """Levels of the pixels of a scene, counted while it is surveyed."""

    def __init__(self) -> None:
        """No pixel yet."""
        self._counts = np.zeros(_BINS * _FINE, np.int64)

    def add(self, amplitude: NDArray[np.float32]) -> None:
        """Count the pixels (N,); those of amplitude zero have no level."""
        lit = amplitude[amplitude > 0]
        level = (20 * np.log10(lit) - np.float32(_FIRST_DB)) * np.float32(_FINE / STEP_DB)
        number = np.clip(level, 0, len(self._counts) - 1).astype(np.int64)
        self._counts += np.bincount(number, minlength=len(self._counts))

    def counted(self, gain: float) -> LevelCounts | None:
        """The counts with amplitudes multiplied by `gain`; None where every pixel was zero."""
        fine = np.flatnonzero(self._counts)
        if fine.size == 0:
            return None
        shift = 20 * np.log10(gain) * _FINE / STEP_DB
        number = np.clip((fine + 0.5 + shift) // _FINE, 0, _BINS - 1).astype(np.int64)
        first = int(number[0])
        counts = np.zeros(int(number[-1]) - first + 1, np.int64)
        np.add.at(counts, number - first, self._counts[fine])
        return LevelCounts(first, counts)


@dataclass(frozen=True)
class ArchiveWindow:
    """The dB window of an archive, and what it clips."""

    low_db: float
    """sigma0 of code 0, dB."""
    top_db: float
    """sigma0 of code 255, dB."""
    power_clipped: float
    """Share of the power of the scenes that clipping at the top loses, without the outliers."""
    pixels_below: float
    """Share of their pixels below the low end."""
    scenes: int
    """Scenes that it was chosen from."""
    outliers: Mapping[str, float] = field(default_factory=dict)
    """Scenes that had no part in the choice, with the share of their power that is clipped."""

    def to_json(self) -> dict[str, Any]:
        """The window as plain JSON values."""
        return asdict(self)


def archive_window(levels: Mapping[str, LevelCounts]) -> ArchiveWindow | None:
    """The window of the scenes with these levels; None where there are none.

    A scene far beyond all others (a wrong calibration, a corner reflector) does not widen it: at
    most one scene, or 1 % of them, and only if a gap of 25 dB separates it from the others. It is
    logged and recorded with the share of its power that is clipped.
    """
    if not levels:
        return None
    ends = {name: _window(scene.dense()) for name, scene in levels.items()}
    outliers = _outliers({name: top for name, (_, top) in ends.items()})
    outliers |= _outliers({name: -low for name, (low, _) in ends.items()})
    rest = _pooled(levels, outliers)
    low, top = _window(rest)
    low = min(low, top - round(_LEAST_WIDTH_DB / STEP_DB))
    found = ArchiveWindow(
        low_db=_db(low),
        top_db=_db(top),
        power_clipped=_lost(rest, top),
        pixels_below=float(rest[:low].sum() / rest.sum()),
        scenes=len(levels),
        outliers={name: _lost(levels[name].dense(), top) for name in sorted(outliers)},
    )
    log.info(
        "db_window=[%.1f, %.1f] scenes=%d power_clipped=%.2e pixels_below=%.3f",
        found.low_db, found.top_db, found.scenes, found.power_clipped, found.pixels_below,
    )  # fmt: skip
    for name, share in found.outliers.items():
        log.warning(
            "scene=%s lies %g dB or more beyond all others, and has no part in the dB window: "
            "%.0f %% of its power is clipped; check its calibration, or set tile.db_window",
            name, OUTLIER_GAP_DB, 100 * share,
        )  # fmt: skip
    return found


def scene_window(levels: LevelCounts) -> tuple[float, float]:
    """The window of one scene by the same rule, dB."""
    low, top = _window(levels.dense())
    return _db(min(low, top - round(_LEAST_WIDTH_DB / STEP_DB))), _db(top)


def _pooled(levels: Mapping[str, LevelCounts], without: set[str]) -> Counts:
    every = np.zeros(_BINS, np.int64)
    for name, scene in levels.items():
        if name not in without:
            every[scene.first : scene.first + len(scene.counts)] += scene.counts
    return every


def _window(counts: Counts) -> tuple[int, int]:
    """Numbers of the bins at whose lower edges the window begins and ends."""
    edges = 10 ** ((_FIRST_DB + np.arange(_BINS + 1) * STEP_DB) / 10)
    # Taken at the upper edges of their bins, but in sum at the lower ones: never too little.
    above = _from_the_end(counts * edges[1:])
    lost = above - edges * _from_the_end(counts)
    total = float(counts @ edges[:-1])
    top = int(np.argmax(lost < MOST_CLIPPED * total))
    below = np.cumsum(counts) - counts
    low = int(np.flatnonzero(below <= LOW_SHARE * counts.sum())[-1])
    return low, top


def _from_the_end(values: NDArray[Any]) -> NDArray[Any]:
    """Sums (N + 1,) of all values (N,) from each one on; the last is zero."""
    return np.append(np.cumsum(values[::-1])[::-1], 0)


def _lost(counts: Counts, top: int) -> float:
    """Share of the power that is lost above the lower edge of bin `top`."""
    centres = 10 ** ((_FIRST_DB + (np.arange(_BINS) + 0.5) * STEP_DB) / 10)
    excess = np.maximum(centres - 10 ** (_db(top) / 10), 0)
    return float(counts @ excess) / float(counts @ centres)


def _db(number: int) -> float:
    """Level of the lower edge of a bin, dB."""
    return round(_FIRST_DB + number * STEP_DB, 6)


def _outliers(ends: Mapping[str, int]) -> set[str]:
    """Scenes whose ends lie far above those of all others: 1 % of them at most, or one."""
    if len(ends) < _LEAST_SCENES:
        return set()
    ranked = sorted(ends, key=lambda name: (-ends[name], name))
    most = max(1, len(ends) // 100)
    gap = round(OUTLIER_GAP_DB / STEP_DB)
    cut = [
        number
        for number, (upper, lower) in enumerate(itertools.pairwise(ranked[: most + 1]), 1)
        if ends[upper] - ends[lower] >= gap
    ]
    return set(ranked[: max(cut, default=0)])
