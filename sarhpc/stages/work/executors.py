"""Executors of shards: in turn in this process, or on the Dask workers of all tasks of the job."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator

from hpc.cluster.allocation import Allocation, current_allocation
from hpc.job.pipeline import Work
from hpc.job.stop import StopReason, StopRequest, stop_signalled
from hpc.job.watchdog import Watchdog
from hpc.store.ledger import Record
from hpc.store.plan import ShardTask

log = logging.getLogger(__name__)

RECORDS_POLL_S = 5.0
"""Interval between two looks at the records of an element whose cluster is awaited."""

Outcomes = Iterator[tuple[ShardTask, Record | BaseException]]
Call = Callable[[ShardTask], Record]
"""Makes one shard and publishes its record; picklable."""


class GracefulStop:
    """Decides after a stop request how long to wait for shards under way."""

    def __init__(self, stop: StopRequest, grace_s: float) -> None:
        self._stop = stop
        self._grace_s = grace_s
        self._reason: StopReason | None = None
        self._until = float("inf")

    @property
    def reason(self) -> StopReason | None:
        """Why no further shard may start; None while there is no stop request."""
        requested = self._stop.agree()
        if requested is not None and (self._reason is None or requested > self._reason):
            self._reason = requested
            self._until = time.monotonic() + self._wait_s(requested)
        return self._reason

    def is_over(self) -> bool:
        """Whether to abandon the shards under way."""
        return self.reason is not None and time.monotonic() >= self._until

    def _wait_s(self, reason: StopReason) -> float:
        if reason is StopReason.STOP_FILE:
            return float("inf")
        # After SIGTERM comes SIGKILL, 30 s later on most sites.
        return self._grace_s / 2 if reason.requeues else min(self._grace_s / 2, 15.0)


def run_sequentially(work: Work, call: Call, stopping: GracefulStop) -> Outcomes:
    """Make the shards one after the other in this process; each polls for a stop itself."""
    for task in work.todo():
        if stopping.reason is not None:
            return
        try:
            yield task, call(task)
        except Exception as error:
            yield task, error


def run_on_dask(
    work: Work, call: Call, stopping: GracefulStop, workers: int, retries: int, dog: Watchdog
) -> Outcomes:
    """Make the shards on a Dask cluster over all tasks of the job, of which this is rank 0.

    `workers` is the number of worker processes of each task.
    """
    from hpc.cluster.dask import dask_cluster, worker_stacks
    from hpc.cluster.dask_shards import run_shards

    todo = work.todo()
    if stopping.reason is not None or not todo:
        return
    here = current_allocation()
    deadline = work.stop.deadline
    tasks = itertools.takewhile(lambda _: stopping.reason is None, todo)
    with dask_cluster(
        work.run.root / "dask",
        min(workers, len(todo)),
        shared=here.tasks > 1,
        # After the wait for shards, and before the job is killed, workers left alone exit.
        ends=None if deadline is None else deadline + 0.75 * work.context.grace_s,
    ) as client:
        dog.extra_stacks = lambda: worker_stacks(client)
        yield from run_shards(
            client,
            call,
            tasks,
            window=workers * here.tasks,
            retries=retries,
            should_abort=stopping.is_over,
        )


def join_as_workers(work: Work, workers: int) -> None:
    """Run workers of rank 0's Dask cluster until it ends.

    An error is only logged, and the other tasks do the work: after a failed task srun would end
    rank 0 too.
    """
    from hpc.cluster.dask import join_cluster

    try:
        join_cluster(
            work.run.root / "dask",
            workers,
            is_over=_Ending(work),
        )
    except Exception as error:
        log.error("rank %d provides no workers, the job continues without: %r", work.rank, error)


class _Ending:
    """Says whether rank 0 opens no cluster any more."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._looked = time.monotonic()

    def __call__(self) -> bool:
        """Whether there is nothing left to work for."""
        work = self._work
        if work.ledger.sealed or work.run.stop_file.exists() or stop_signalled():
            return True
        # Rank 0 of an element may have had little to do, and have ended.
        if work.element is None or time.monotonic() - self._looked < RECORDS_POLL_S:
            return False
        self._looked = time.monotonic()
        return not work.todo()


def workers_here(
    here: Allocation, configured: int, *, per_core: bool = False, element: bool = False
) -> int:
    """Worker processes of this task: one per GPU, else one per core the job gave it.

    As many as configured where the allocation does not say, as outside a job. With `per_core`,
    GPUs do not count. A task of an array `element` has one per GPU, else one: arrays are for work
    that fills the cores of a task.
    """
    if element:
        return 1 if per_core else len(here.gpus) or 1
    if here.job_id is None or here.cpus is None:
        return configured
    return here.cpus if per_core else len(here.gpus) or here.cpus
