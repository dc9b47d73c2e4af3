"""Sharded stages: each shard is published, and then its record."""

from __future__ import annotations

import contextlib
import functools
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.cluster.allocation import current_allocation
from hpc.errors import GpuMemoryError, HpcError, IncompleteError, StopRequestedError
from hpc.job.agreement import SingleProcess
from hpc.job.pipeline import Work
from hpc.job.stop import StopReason, StopRequest
from hpc.job.watchdog import HangLimits, Watchdog, WatchedProcess
from hpc.memory import gpu_memory_advised
from hpc.publish import remove_stale_temporaries
from hpc.store.lease import Lease
from hpc.store.ledger import STALE_FILE_AGE_S, Failure, Record
from hpc.store.plan import ShardTask
from hpc.store.rundir import RunDir, now
from sarhpc.stages.work.executors import (
    GracefulStop,
    Outcomes,
    join_as_workers,
    run_on_dask,
    run_sequentially,
    workers_here,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardResult:
    """What the work on one shard published: its file, its digest, its counts."""

    path: Path
    samples: int
    bytes: int
    sha256: str
    rejected: Mapping[str, int] = field(default_factory=dict)
    detail: Mapping[str, str] = field(default_factory=dict)


MakeShard = Callable[[RunDir, ShardTask], ShardResult]


def make_and_record(
    make: MakeShard,
    root: str,
    stage: str,
    plan_id: str,
    attempt: int,
    task: ShardTask,
    lease: Lease | None = None,
) -> Record:
    """Run `make` on one shard and publish its record; the unit of work of a Dask worker.

    Raises:
        LeaseLostError: the job holds the `lease` of the stage no more; the record is not published.
    """
    run = RunDir(Path(root))
    started, clock = now(), time.monotonic()
    with gpu_memory_advised(lambda: _MEMORY_ADVICE.get(stage, _OTHER_GPU)):
        made = make(run, task)
    record = Record(
        shard=task.id,
        plan=plan_id,
        path=str(made.path),
        samples=made.samples,
        bytes=made.bytes,
        sha256=made.sha256,
        attempt=attempt,
        host=platform.node(),
        started=started,
        finished=now(),
        seconds=round(time.monotonic() - clock, 3),
        rejected=dict(made.rejected),
        detail=dict(made.detail),
    )
    run.ledger(stage, lease).publish(record)
    return record


_OTHER_GPU = "run the stage on GPUs with more memory"
_LOWER = "lower {} in a new run, or " + _OTHER_GPU
_MEMORY_ADVICE = {
    "caption": _LOWER.format("caption.batch or caption.beams"),
    "generate": _LOWER.format("generate.batch, or set generate.dtype=bfloat16,"),
    "prior": _LOWER.format("prior.batch, or set prior.dtype=bfloat16,"),
}
"""Stage -> what to do where its work does not fit on a GPU."""


def make_missing_shards(
    make: MakeShard,
    work: Work,
    *,
    workers: int,
    retries: int = 2,
    per_core: bool = False,
    hopeless: tuple[type[HpcError], ...] = (),
) -> None:
    """Make every missing shard of the work's part, noting failures in the ledger.

    An array element with one worker makes them one after the other in this process, as a sequential
    context asks for; any other job on a Dask cluster over all its tasks, with rank 0 as the client.
    After a stop request no further shard starts; those under way are waited for while there is
    time.

    Args:
        make: makes one shard.
        work: the part to do.
        workers: Dask worker processes of this task, where the allocation does not say.
        retries: how often a shard may be tried again after its worker died.
        per_core: whether there is a worker for each core even where the job has GPUs.
        hopeless: errors of a shard after which no other one is worth a try.

    Raises:
        StopRequestedError: a stop was requested.
        HpcError: one of those that are `hopeless`.
        GpuMemoryError: a shard does not fit on its GPU, and no other one will.
    """
    here, in_element = current_allocation(), work.element is not None
    workers = workers_here(here, workers, per_core=per_core, element=in_element)
    if work.rank > 0:
        join_as_workers(work, workers)
        return
    call = functools.partial(
        make_and_record,
        make,
        str(work.run.root),
        work.plan.stage,
        work.plan.id,
        work.attempt,
        lease=work.lease,
    )
    with (
        StopRequest(
            SingleProcess(), work.run.stop_file, deadline=work.stop.deadline, poll_s=0.0
        ) as stop,
        watchdog(work).watching() as dog,
    ):
        stopping = GracefulStop(stop, work.context.grace_s)
        if work.context.sequential or (in_element and workers * here.tasks == 1):
            outcomes = run_sequentially(work, call, stopping)
        else:
            outcomes = run_on_dask(work, call, stopping, workers, retries, dog)
        with contextlib.closing(outcomes):
            _log_outcomes(work, outcomes, stopping, dog, hopeless)


def watchdog(work: Work) -> Watchdog:
    """Watchdog of the process that distributes shards; a finished shard is progress."""
    directory = work.run.stage(work.plan.stage)
    place = WatchedProcess(directory, attempt=work.attempt, element=work.element, lease=work.lease)
    # A shard is minutes of work, and the first one comes after the models are loaded.
    return Watchdog(place, work.done, HangLimits(startup_s=2 * 3600, min_s=3600))


def _log_outcomes(
    work: Work,
    outcomes: Outcomes,
    stopping: GracefulStop,
    dog: Watchdog,
    hopeless: tuple[type[HpcError], ...],
) -> None:
    """Log every shard as it finishes, and record failures."""
    progress = ProgressLog(work.plan.stage, work.total, work.done())
    permanent: tuple[type[HpcError], ...] = (*hopeless, GpuMemoryError)
    for task, outcome in outcomes:
        dog.beat()
        given_up = isinstance(outcome, IncompleteError) and stopping.reason is not None
        if isinstance(outcome, BaseException) and not given_up:
            _note_failure(work, task, outcome)
        if isinstance(outcome, permanent):
            raise outcome
        progress.step(outcome)
    if stopping.reason is not None and work.todo():
        raise _stopped(work, progress, stopping.reason)


def _stopped(work: Work, progress: ProgressLog, reason: StopReason) -> StopRequestedError:
    return StopRequestedError(
        f"{progress.stage} stopped ({reason.name}) with {progress.done} of {progress.total} shards "
        f"done; continue with `sarhpc resume {work.run.quoted}`",
        requeue=reason.requeues,
        reason=reason.name,
    )


def _note_failure(work: Work, task: ShardTask, error: BaseException) -> None:
    kind = type(error).__name__
    log.warning("stage=%s shard=%s failed=%s %s", work.plan.stage, task.id, kind, error)
    work.ledger.fail(
        Failure(task.id, work.plan.id, work.attempt, 1, kind, str(error)[:2000], now())
    )


class ProgressLog:
    """Logs one `key=value` line at most every 30 s, and one at the end."""

    def __init__(self, stage: str, total: int, done: int) -> None:
        self.stage, self.total, self.done = stage, total, done
        self.first = self.last = time.monotonic()
        self.here = self.samples = 0

    def step(self, outcome: Record | BaseException) -> None:
        """Count one shard, and log a line if the last one is 30 s old."""
        if isinstance(outcome, Record):
            self.done += 1
            self.here += 1
            self.samples += outcome.samples
        clock = time.monotonic()
        if clock - self.last >= 30 or self.done == self.total:
            self.last = clock
            rate = self.here / max(clock - self.first, 1e-9)
            # Without a finished shard the end cannot be estimated.
            eta = f" eta_s={(self.total - self.done) / rate:.0f}" if rate else ""
            log.info(
                "stage=%s shards=%d/%d samples=%d shards_per_s=%.2f%s",
                self.stage, self.done, self.total, self.samples, rate, eta,
            )  # fmt: skip


def remove_stale_files(directory: Path) -> None:
    """Remove temporary files over an hour old, of killed writers, in `directory` and its splits."""
    if directory.is_dir():
        for folder in [directory, *(p for p in directory.iterdir() if p.is_dir())]:
            for path in remove_stale_temporaries(folder, STALE_FILE_AGE_S):
                log.info("swept=%s", path)


def single_shard(work: Work, make: Callable[[], ShardResult]) -> None:
    """Make the only shard of a stage in this process, and record it."""
    [task] = work.plan.shards
    make_and_record(
        lambda _run, _task: make(),
        str(work.run.root),
        work.plan.stage,
        work.plan.id,
        work.attempt,
        task,
        work.lease,
    )


def sealed_records(run: RunDir, stage: str) -> list[Record]:
    """Records of a sealed stage in shard order.

    Raises:
        IncompleteError: the stage is not sealed.
    """
    ledger = run.ledger(stage)
    if not ledger.sealed:
        raise IncompleteError(
            f"{stage} is not sealed in {run.root}; continue with: sarhpc resume {run.quoted}"
        )
    return list(ledger.records().values())


def rejected_summary(run: RunDir, stages: Sequence[str]) -> str:
    """What sealed stages rejected, as `stage reason count` by reason, for a message."""
    counts: Counter[str] = Counter()
    for stage in stages:
        for record in sealed_records(run, stage):
            for reason, count in record.rejected.items():
                counts[f"{stage} {reason}"] += count
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))


def manifest_sha(run: RunDir, stage: str) -> str:
    """Digest over the content (not the history) of a sealed stage: shard ids and their SHA-256."""
    import hashlib

    pairs: list[Any] = [(r.shard, r.sha256) for r in sealed_records(run, stage)]
    return hashlib.sha256(repr(pairs).encode()).hexdigest()


def sealed_paths(work: Work) -> list[Path]:
    """Artefacts of every record of the stage, in shard order."""
    return [Path(record.path) for record in work.ledger.records().values()]
