"""The shards that workers of a stage are making now, from what they publish."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.job.shard_progress import FOLDER, ShardUnderWay, read_under_way
from hpc.store.identity import is_alive

SILENT_S = 60.0
"""A worker elsewhere that has published nothing for so long is taken for dead ..."""
SILENT_PAUSES = 5.0
"""... unless its samples come slower: then after so many times its longest pause."""


@dataclass(frozen=True)
class UnderWay:
    """All shards under way of one stage."""

    shards: int
    done: int
    """Samples made so far in them."""
    goal: int | None
    """Samples planned in them; None if unknown of any."""
    share: float
    """Of them that is made, in shards; those of unknown size count nothing."""
    per_s: float = 0.0
    """Samples per second of all workers together."""
    gpus: int = 0
    """GPUs of these workers."""
    cores: int = 0
    """CPU cores of these workers, where they have no GPU; 0 if unknown."""

    @property
    def per_gpu_hour(self) -> float | None:
        """Samples per GPU-hour; None without GPUs."""
        return 3600 * self.per_s / self.gpus if self.gpus else None

    @property
    def per_core_hour(self) -> float | None:
        """Samples per CPU-core-hour, where there is no GPU; None if unknown."""
        return 3600 * self.per_s / self.cores if self.cores and not self.gpus else None

    @property
    def shards_per_s(self) -> float | None:
        """Shards per second of all workers together; None while unknown."""
        return self.per_s * self.shards / self.goal if self.goal and self.per_s else None

    def to_json(self) -> dict[str, Any]:
        """As `status --json` shows it."""
        return {
            **vars(self),
            "per_s": round(self.per_s, 4),
            "per_gpu_hour": _rounded(self.per_gpu_hour),
            "per_core_hour": _rounded(self.per_core_hour),
        }


def shards_under_way(stage: Path, clock: float, recorded: Collection[str]) -> UnderWay | None:
    """The shards that live workers are making; None if none of them has published any.

    Args:
        stage: folder of the stage.
        clock: now, s since the epoch.
        recorded: ids of the shards that are finished.
    """
    newest: dict[str, ShardUnderWay] = {}
    for path in sorted((stage / FOLDER).glob("*.json")):
        found = _live(path, clock)
        if found is None or found.shard in recorded:
            continue
        other = newest.get(found.shard)
        if other is None or found.done > other.done:
            newest[found.shard] = found
    return _together(list(newest.values())) if newest else None


def _together(shards: Sequence[ShardUnderWay]) -> UnderWay:
    goals = [shard.goal for shard in shards]
    gpus = sum(shard.devices.gpus for shard in shards)
    return UnderWay(
        shards=len(shards),
        done=sum(shard.done for shard in shards),
        goal=None if None in goals else sum(goal or 0 for goal in goals),
        share=sum(min(s.done / s.goal, 1.0) for s in shards if s.goal),
        per_s=sum(s.done / s.seconds for s in shards if s.seconds > 0),
        gpus=gpus,
        cores=0 if gpus else sum(shard.devices.cores for shard in shards),
    )


def _live(path: Path, clock: float) -> ShardUnderWay | None:
    """What a worker published; None if it is dead, or the file is gone or damaged."""
    try:
        published = path.stat().st_mtime
    except OSError:
        return None
    found = read_under_way(path)
    if found is None:
        return None
    alive = None if found.worker is None else is_alive(found.worker)
    if alive is None:
        alive = clock - published <= max(SILENT_S, SILENT_PAUSES * found.pause_s)
    return found if alive else None


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 1)
