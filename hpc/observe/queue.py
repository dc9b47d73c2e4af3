"""The jobs of one stage in the queue, summarised over jobs and array elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc.cluster.slurm import QueuedJob

WORKING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
STUCK = ("DependencyNeverSatisfied", "JobHeldUser", "JobHeldAdmin", "BadConstraints",
         "PartitionDown", "PartitionInactive", "PartitionTimeLimit", "PartitionNodeLimit",
         "AccountNotAllowed", "QOSNotAllowed", "AssociationJobLimit", "launch failed",
         "launch_failed_requeued_held", "job requeued in held state",
         "job_requeued_in_held_state")  # fmt: skip
"""Reasons that do not resolve by themselves."""


@dataclass(frozen=True)
class Queue:
    """The jobs of one stage in the queue."""

    jobs: tuple[str, ...] = ()
    """Ids of its jobs; of an array the part before `_`."""
    working: int = 0
    """Jobs and array elements that run."""
    waiting: int = 0
    """Jobs and array elements that wait."""
    reasons: tuple[str, ...] = ()
    """Why they wait, most frequent first."""
    restarts: int = 0
    """Maximum number of restarts of any of them."""
    nodes: str = ""
    """Nodes of the first running job."""
    time_left_s: int | None = None
    """Shortest time to a time limit of any running job, s."""
    elapsed_s: int | None = None
    """Longest time that any of them has been running, s."""


def queue_summary(rows: Sequence[QueuedJob]) -> Queue:
    """The rows of one stage's jobs, summarised."""
    working = [row for row in rows if row.state in WORKING]
    waiting = [row for row in rows if row.state not in WORKING]
    reasons: Counter[str] = Counter()
    for row in waiting:
        reasons[row.reason] += elements_of(row.id)
    lefts = [row.left_s for row in working if row.left_s is not None]
    elapsed = [row.elapsed_s for row in working if row.elapsed_s is not None]
    return Queue(
        jobs=tuple(dict.fromkeys(row.job_id for row in rows)),
        working=len(working),
        waiting=sum(elements_of(row.id) for row in waiting),
        reasons=tuple(reason for reason, _ in reasons.most_common() if reason),
        restarts=max((row.restarts or 0 for row in rows), default=0),
        nodes=working[0].nodes if working else "",
        time_left_s=min(lefts, default=None),
        elapsed_s=max(elapsed, default=None),
    )


def elements_of(job: str) -> int:
    """Array elements in one row of the queue: 6 for `12_[0-4,9%2]`, 1 for `12_3`."""
    _, bracket, inside = job.partition("[")
    if not bracket:
        return 1
    total = 0
    for part in inside.rstrip("]").split("%")[0].split(","):
        first, _, last = part.split(":")[0].partition("-")
        if not first.isdigit():
            return max(total, 1)  # Slurm truncates long lists with `...`
        total += int(last or first) - int(first) + 1
    return total


def is_stuck(reason: str) -> bool:
    """Whether a job that waits for this reason can never start."""
    return any(word.lower() in reason.lower() for word in STUCK)
