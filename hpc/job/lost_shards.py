"""Shards of array elements that never come back, which the last living element makes.

An element whose own shards are done asks who owns what is missing. An owner that holds its lease
will ask the same at its own end, so nothing is done then and Slurm is not queried: of thousands of
elements only those that find no living owner query it, once each. An owner comes back if it is in
the queue, waiting or not yet known to be dead. What is left has no owner any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from hpc.errors import HpcError
from hpc.job.pipeline import Work
from hpc.store.lease import live_holder
from hpc.store.plan import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Siblings:
    """The elements of one submission."""

    owners: Callable[[Plan], Mapping[str, int]]
    """Shard -> element, of the shards that were missing when it was submitted."""
    queued: Callable[[], Mapping[int, str]]
    """Element -> state, of the elements in the queue; one query of Slurm."""
    timeout_s: float = 120.0
    """How long to wait for an element that is starting or ending, s."""
    poll_s: float = 10.0
    """Seconds between two queries meanwhile."""


def lost_shards(work: Work, siblings: Siblings) -> frozenset[str]:
    """Shards without a record or a failure whose element has ended for good.

    Those that failed are left: they would fail here too. None where Slurm does not answer.
    """
    wanted = {task.id for task in work.ledger.missing(work.plan)} - set(work.ledger.failures())
    if not wanted:
        return frozenset()
    known = siblings.owners(work.plan)
    owners = {shard: known.get(shard) for shard in wanted}
    absent = {owner for owner in owners.values() if owner is not None}
    if any(_works(work, owner) for owner in absent):
        return frozenset()
    try:
        coming = _coming(work, siblings, absent) if absent else set()
    except HpcError as error:
        log.warning("shards of lost elements are left, as Slurm does not answer: %s", error)
        return frozenset()
    lost = frozenset(shard for shard, owner in owners.items() if owner not in coming)
    return lost - work.ledger.recorded_ids()


def _works(work: Work, owner: int) -> bool:
    return live_holder(work.run.stage(work.plan.stage) / f".lease-{owner}.json") is not None


def _coming(work: Work, siblings: Siblings, absent: Collection[int]) -> set[int]:
    """Those of `absent` that come back.

    A job that runs without holding its lease is starting or ending, and is waited for.
    """
    until = time.monotonic() + siblings.timeout_s
    while True:
        queued = siblings.queued()
        here = {owner for owner in absent if owner in queued}
        undecided = {o for o in here if queued[o] != "PENDING" and not _works(work, o)}
        if not undecided or time.monotonic() >= until:
            return here
        time.sleep(siblings.poll_s)
