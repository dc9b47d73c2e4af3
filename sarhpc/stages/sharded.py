"""Shards through Dask: each worker publishes its shard and then its record."""

from __future__ import annotations

import functools
import itertools
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.errors import HpcError, IncompleteError, StopRequestedError
from hpc.publish import sweep_temporaries
from hpc.run.ledger import LITTER_AGE_S, Failure, Record
from hpc.run.pipeline import Work
from hpc.run.plan import ShardTask
from hpc.run.rundir import RunDir, now

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """What the work on one shard published: its file, its digest, its counts."""

    path: Path
    samples: int
    bytes: int
    sha256: str
    rejected: Mapping[str, int] = field(default_factory=dict)
    detail: Mapping[str, str] = field(default_factory=dict)


MakeShard = Callable[[RunDir, ShardTask], Made]


def make_and_record(
    make: MakeShard, root: str, stage: str, plan_id: str, attempt: int, task: ShardTask
) -> Record:
    """Run `make` on one shard and publish its record; the unit of work of a Dask worker."""
    run = RunDir(Path(root))
    started, clock = now(), time.monotonic()
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
    run.ledger(stage).publish(record)
    return record


def work_through(make: MakeShard, work: Work, *, workers: int, retries: int = 2) -> None:
    """Make every missing shard of the plan on a Dask cluster, noting failures in the ledger.

    Hands out no more shards once the run's STOP file appears; what is finished stays.

    Raises:
        StopRequestedError: an operator asked to stop.
    """
    from hpc.cluster.dask import dask_cluster, run_shards

    stage = work.plan.stage
    todo = work.ledger.missing(work.plan)
    call = functools.partial(
        make_and_record, make, str(work.run.root), stage, work.plan.id, work.attempt
    )
    progress = Progress(stage, total=len(work.plan.shards), done=len(work.plan.shards) - len(todo))
    if work.run.stop_file.exists():
        raise _stopped(work, progress)
    tasks = itertools.takewhile(lambda _: not work.run.stop_file.exists(), todo)
    with dask_cluster(work.run.root / "dask", workers=min(workers, len(todo))) as client:
        for task, outcome in run_shards(client, call, tasks, window=workers, retries=retries):
            given_up = isinstance(outcome, IncompleteError) and work.run.stop_file.exists()
            if isinstance(outcome, BaseException) and not given_up:
                _note_failure(work, task, outcome)
            progress.step(outcome)
    if work.run.stop_file.exists() and progress.done < progress.total:
        raise _stopped(work, progress)


def _stopped(work: Work, progress: Progress) -> StopRequestedError:
    return StopRequestedError(
        f"{progress.stage} stopped with {progress.done} of {progress.total} shards done; go on "
        f"with `sarhpc resume {work.run.root}`"
    )


def _note_failure(work: Work, task: ShardTask, error: BaseException) -> None:
    kind = type(error).__name__
    log.warning("stage=%s shard=%s failed=%s %s", work.plan.stage, task.id, kind, error)
    work.ledger.fail(
        Failure(task.id, work.plan.id, work.attempt, 1, kind, str(error)[:2000], now())
    )


class Progress:
    """One `key=value` line at most every 30 s, and one at the end."""

    def __init__(self, stage: str, total: int, done: int) -> None:
        self.stage, self.total, self.done = stage, total, done
        self.first = self.last = time.monotonic()
        self.here = self.samples = 0

    def step(self, outcome: Record | BaseException) -> None:
        """Count one shard and say how it goes when it is time to."""
        if isinstance(outcome, Record):
            self.done += 1
            self.here += 1
            self.samples += outcome.samples
        clock = time.monotonic()
        if clock - self.last >= 30 or self.done == self.total:
            self.last = clock
            rate = self.here / max(clock - self.first, 1e-9)
            eta = (self.total - self.done) / rate if rate else float("inf")
            log.info(
                "stage=%s shards=%d/%d samples=%d shards_per_s=%.2f eta_s=%.0f",
                self.stage, self.done, self.total, self.samples, rate, eta,
            )  # fmt: skip


def sweep(directory: Path) -> None:
    """Remove what writers killed over an hour ago left in `directory` and its splits."""
    if directory.is_dir():
        for folder in [directory, *(p for p in directory.iterdir() if p.is_dir())]:
            for path in sweep_temporaries(folder, LITTER_AGE_S):
                log.info("swept=%s", path)


def single_shard(work: Work, make: Callable[[], Made]) -> None:
    """Make the one shard of a stage that is not split, in this process, and record it."""
    [task] = work.plan.shards
    make_and_record(
        lambda _run, _task: make(),
        str(work.run.root),
        work.plan.stage,
        work.plan.id,
        work.attempt,
        task,
    )


def sealed_records(run: RunDir, stage: str) -> list[Record]:
    """Records of a sealed stage in shard order.

    Raises:
        HpcError: the stage is not sealed.
    """
    ledger = run.ledger(stage)
    if not ledger.sealed:
        raise HpcError(f"{stage} is not sealed in {run.root}; run `sarhpc {stage}` first")
    return list(ledger.records().values())


def left_out(run: RunDir, stages: Sequence[str]) -> str:
    """What sealed stages left out, `stage reason count` by reason, for a message."""
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
    """Artefacts of every record of the stage in hand, in shard order."""
    return [Path(record.path) for record in work.ledger.records().values()]
