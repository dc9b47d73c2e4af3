"""Stragglers: ranks that keep the others waiting.

Ranks that synchronise in every step all take as long as the slowest, so the step time shows
nothing. The time that each rank spends on its own work, between two synchronisations, does.
"""

from __future__ import annotations

import logging
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc.cluster.allocation import current_allocation
from hpc.job.agreement import RankGroup
from hpc.publish import publish_json

PACE_SCHEMA = "sarhpc.pace/1"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RankPace:
    """How fast one rank works."""

    rank: int
    host: str
    own_s: float
    """Mean seconds of own work in a step."""
    ratio: float
    """Ratio to the median of all ranks."""
    straggles: bool


def rank_paces(paces: list[tuple[str, float]], factor: float, min_gap_s: float) -> list[RankPace]:
    """Every rank's pace against the median.

    Args:
        paces: host and seconds of own work in a step, by rank.
        factor: a rank is a straggler above this multiple of the median ...
        min_gap_s: ... if it is also slower by this much, s.
    """
    middle = statistics.median(seconds for _, seconds in paces)
    return [
        RankPace(
            rank,
            host,
            round(seconds, 6),
            round(seconds / middle, 3) if middle > 0 else 1.0,
            seconds > factor * middle and seconds - middle > min_gap_s,
        )
        for rank, (host, seconds) in enumerate(paces)
    ]


class PaceTable:
    """Publishes the pace of all ranks at an interval of steps, and logs stragglers."""

    def __init__(
        self,
        ranks: RankGroup,
        path: Path,
        every: int = 50,
        factor: float = 1.3,
        min_gap_s: float = 0.01,
    ) -> None:
        """Compare the `ranks` every `every` notes, and publish at `path`."""
        self._ranks = ranks
        self._path = path
        self._every = every
        self._factor = factor
        self._min_gap_s = min_gap_s
        self._total = 0.0
        self._count = 0

    def note(self, step: int, own_s: float) -> list[RankPace]:
        """Record one step's own work, s; returns the pace of all ranks whenever it is compared.

        Collective: every rank records the same steps.
        """
        self._total += own_s
        self._count += 1
        if self._count < self._every:
            return []
        mine = (current_allocation().node, self._total / self._count)
        self._total, self._count = 0.0, 0
        paces = rank_paces(self._ranks.gather(mine), self._factor, self._min_gap_s)
        if self._ranks.rank == 0:
            rows = [asdict(pace) for pace in paces]
            publish_json(self._path, {"schema": PACE_SCHEMA, "step": step, "ranks": rows})
            for slow in (pace for pace in paces if pace.straggles):
                _log.warning(
                    "straggler rank=%d host=%s own_s=%.4f ratio=%.2f step=%d",
                    slow.rank, slow.host, slow.own_s, slow.ratio, step,
                )  # fmt: skip
        return paces
