"""The pipeline: stages in order, each started from the artefacts of the one before."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.errors import DataError, IncompleteError, StopRequestedError, TransientError
from hpc.job.agreement import SingleProcess
from hpc.job.attempt import (
    RecordedAttempt,
    UpstreamOpenError,
    compact_sealed,
    recorded_attempt,
)
from hpc.job.shard_progress import remove_progress
from hpc.job.stop import StopNow, StopRequest, interrupt_work
from hpc.publish import fault
from hpc.store.lease import Lease, lease
from hpc.store.ledger import Ledger, Record
from hpc.store.plan import Plan, ShardTask, publish_plan, read_plan
from hpc.store.rundir import RunDir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobContext:
    """What a job passes to its stage: stop request, time limits and the operator's override."""

    stop: StopRequest | None = None
    """Polled between shards and steps; None polls the run's STOP file only."""
    grace_s: float = 120.0
    """Seconds between a stop request and the end of the job."""
    lease_timeout_s: float = 0.0
    """How long to wait for a lease that another process holds, s."""
    force: bool = False
    """Start despite a crash loop: the operator has fixed its cause."""
    attempt: RecordedAttempt | None = None
    """Begun by the job, which ends it as well; None to begin and end one with the stage's work."""
    sequential: bool = False
    """Make the shards one after the other in this process, and start no workers."""

    def stop_request(self, run: RunDir) -> StopRequest:
        """The stop request to poll."""
        if self.stop is not None:
            return self.stop
        return StopRequest(SingleProcess(), stop_file=run.stop_file, poll_s=0.0)


@dataclass(frozen=True)
class Work:
    """The arguments of a stage's `work`: the run, the plan, the ledger, the attempt."""

    run: RunDir
    plan: Plan
    ledger: Ledger
    attempt: int
    rank: int = 0
    context: JobContext = field(default_factory=JobContext)
    element: int | None = None
    """Array element this work belongs to; None for the stage as a whole."""
    stripe: frozenset[str] | None = None
    """Ids of the shards to make; None for all."""
    lease: Lease | None = None
    """Lease under which this process publishes; ranks other than 0 hold none."""

    @property
    def stop(self) -> StopRequest:
        """The stop request to poll between shards."""
        return self.context.stop_request(self.run)

    def todo(self) -> list[ShardTask]:
        """Its shards without a record, in plan order."""
        missing = self.ledger.missing(self.plan)
        return [task for task in missing if self.stripe is None or task.id in self.stripe]

    @property
    def total(self) -> int:
        """Number of its shards."""
        return len(self.plan.shards) if self.stripe is None else len(self.stripe)

    def done(self) -> int:
        """Number of its shards with a record."""
        return self.total - len(self.todo())


@dataclass(frozen=True)
class StageProgress:
    """Progress of the work inside a shard, for example the steps of a training."""

    done: int
    goal: int | None
    """Count at which it ends; None while unknown."""
    unit: str
    """What is counted, for example `steps`."""
    per_s: float | None = None
    """Recent rate, counts per second."""
    note: str = ""
    """Short addition for the status, for example the loss."""
    updated: float | None = None
    """Time of the newest count, seconds since the epoch."""

    def to_json(self) -> dict[str, Any]:
        """The progress as `status --json` shows it."""
        renamed = {"note": "says", "updated": "when"}
        return {renamed.get(name, name): value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Stage:
    """One stage: the stages it needs sealed, how it is planned, how it is executed.

    `work` publishes one record per shard through the ledger. A `collective` stage runs on all
    ranks together, and only rank 0 holds lease, plan and ledger.
    """

    name: str
    needs: tuple[str, ...]
    plan: Callable[[RunDir], Plan]
    work: Callable[[Work], None]
    finish: Callable[[Work], None] | None = None
    """Makes what depends on all shards before sealing, for example a catalogue; idempotent."""
    collective: bool = False
    progress: Callable[[RunDir], int] | None = None
    """Progress inside a shard, for example the step of the newest checkpoint; default: shards."""
    live_progress: Callable[[RunDir], StageProgress | None] | None = None
    """Progress of the running work for `status`; cheap, and None before there is any."""
    progress_times: Callable[[RunDir], Sequence[float]] | None = None
    """Times of durable progress, s since the epoch; default: those of the records."""
    beside: Callable[[Record], Mapping[Path, str]] | None = None
    """SHA-256 of what a shard published beside its artefact, for `verify`; default: nothing."""
    warnings: Callable[[RunDir], Sequence[str]] | None = None
    """Lines for `status` on what the stage made; cheap, and none before it made anything."""


def run_stage(
    run: RunDir,
    stage: Stage,
    rank: int = 0,
    force: bool = False,
    context: JobContext | None = None,
) -> str:
    """Run `stage` to completion or to the next stop, and return a one-line summary.

    Safe to call again at any time: finished shards are kept, a sealed stage is not touched.

    Raises:
        IncompleteError: an upstream stage is not sealed, or shards failed in this attempt.
        TransientError: every failed shard failed for a transient reason, such as a full disk.
        RunInUseError: another live process works on this stage.
        CrashLoopError: the last attempts made no progress; the message has the reason.
        StopRequestedError: a stop was requested; what was finished is kept.
        DataError: there is nothing to plan.
    """
    context = context or JobContext(force=force)
    ledger = run.ledger(stage.name)
    if ledger.sealed:
        return already_sealed(run, stage)
    if rank > 0:
        require_upstream(run, stage)
        return _follow(run, stage, ledger, rank, context)
    with attempt_of(run, stage, context) as attempt:
        require_upstream(run, stage)
        path = run.stage(stage.name) / ".lease.json"
        with lease(path, context.lease_timeout_s, interrupt_work) as held:
            attempt.settle(lambda: _progress(run, stage))
            ledger = run.ledger(stage.name, held)
            plan = ensure_plan(run, stage, held)
            missing = len(ledger.missing(plan))
            if missing:
                do_work(stage, Work(run, plan, ledger, attempt.number, context=context, lease=held))
            seal(run, stage, plan, held)
    return f"{stage.name}: sealed, {missing} of {len(plan.shards)} shards made now"


def already_sealed(run: RunDir, stage: Stage) -> str:
    """The summary of a start on a sealed stage; completes a clean-up that a kill interrupted."""
    compact_sealed(run.stage(stage.name))
    return f"{stage.name}: sealed, nothing to do"


def attempt_of(
    run: RunDir, stage: Stage, context: JobContext, element: int | None = None
) -> contextlib.AbstractContextManager[RecordedAttempt]:
    """The attempt that the job has begun, or one that is recorded around the block."""
    if context.attempt is not None:
        return contextlib.nullcontext(context.attempt)
    return recorded_attempt(run.stage(stage.name), element, force=context.force)


def _progress(run: RunDir, stage: Stage) -> int:
    if stage.progress is not None:
        return stage.progress(run)
    return len(run.ledger(stage.name).recorded_ids())


def seal(run: RunDir, stage: Stage, plan: Plan, held: Lease | None = None) -> None:
    """Run `stage.finish` and seal the stage; idempotent, to be called under the stage's lease.

    Raises:
        IncompleteError: shards are missing; the message has the reasons.
        TransientError: every failed shard failed for a transient reason.
    """
    ledger = run.ledger(stage.name, held)
    _require_complete(stage, plan, ledger)
    fault("stage.before_seal")
    if stage.finish is not None and not ledger.sealed:
        if held is not None:
            held.require_held()
        stage.finish(Work(run, plan, ledger, attempt=-1, lease=held))
    ledger.seal(plan)
    remove_progress(run.stage(stage.name))


def require_upstream(run: RunDir, stage: Stage) -> None:
    """Raise UpstreamOpenError unless every stage that `stage` needs is sealed."""
    for need in stage.needs:
        if not run.ledger(need).sealed:
            raise UpstreamOpenError(
                f"{stage.name} needs {need}, which is not sealed; "
                f"run `sarhpc {need} {run.quoted}` or `sarhpc resume {run.quoted}` first"
            )


def ensure_plan(run: RunDir, stage: Stage, held: Lease | None = None) -> Plan:
    """The published plan of `stage`; planned and published now if there is none.

    A published plan is final: planning again could read inputs that have changed since. An empty
    plan is never published, so that the stage can be planned again once its inputs are fixed.

    Raises:
        DataError: the plan has no shards; the message lists the rejected inputs with reasons.
    """
    path = run.plan_file(stage.name)
    if not path.exists():
        plan = stage.plan(run)
        if not plan.shards:
            raise DataError(why_empty(plan))
        publish_plan(plan, path, held)
    return read_plan(path)


def why_empty(plan: Plan) -> str:
    """Why a plan has no shards, and what to do, in one line."""
    why = "; ".join(f"{name}: {reason}" for name, reason in list(plan.rejected.items())[:5])
    return (
        f"{plan.stage}: the plan has no shards, "
        + (f"{len(plan.rejected)} inputs were rejected ({why})" if why else "no input was found")
        + "; fix the inputs, or the configuration in a new run, and start the stage again"
    )


def _follow(run: RunDir, stage: Stage, ledger: Ledger, rank: int, context: JobContext) -> str:
    path = run.plan_file(stage.name)
    if path.exists() and not ledger.missing(read_plan(path)):
        # An attempt died between record and seal: rank 0 only seals and joins no collective.
        return f"{stage.name}: rank {rank} has nothing to do"
    empty = Plan(stage.name, ())
    stage.work(Work(run, empty, ledger, attempt=-1, rank=rank, context=context))
    return f"{stage.name}: rank {rank} done"


def do_work(stage: Stage, work: Work) -> None:
    """Do `work`.

    Raises:
        StopRequestedError: it was interrupted (a StopNow raised inside it is converted).
    """
    try:
        stage.work(work)
    except StopNow as stop:
        raise interrupted(stage.name, stop) from None


def interrupted(stage: str, stop: StopNow) -> StopRequestedError:
    """The error by which a job ends when StopNow interrupted work that had nothing to save."""
    return StopRequestedError(
        f"{stage} was interrupted ({stop.reason.name}); what it had published is kept",
        requeue=stop.reason.requeues,
        reason=stop.reason.name,
    )


def _require_complete(stage: Stage, plan: Plan, ledger: Ledger) -> None:
    missing = ledger.missing(plan)
    if not missing:
        return
    failures = ledger.failures()
    why = "; ".join(f"{f.shard}: {f.error}: {f.message}" for f in list(failures.values())[:3])
    transient = failures and all(f.error == TransientError.__name__ for f in failures.values())
    raise (TransientError if transient else IncompleteError)(
        f"{stage.name}: {len(missing)} of {len(plan.shards)} shards are not done"
        + (f" ({len(failures)} failed: {why})" if failures else "")
        + "; `sarhpc resume` tries them again"
    )


def unsealed_stages(run: RunDir, stages: Sequence[Stage]) -> Iterator[Stage]:
    """The stages that are not sealed, in order."""
    return (stage for stage in stages if not run.ledger(stage.name).sealed)
