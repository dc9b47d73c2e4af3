"""The pipeline: stages in order, each run from what the last one left, and what is left to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from hpc.errors import (
    DataError,
    IncompleteError,
    StopRequestedError,
    TransientError,
    exit_code_of,
)
from hpc.job.agreement import SingleProcess
from hpc.job.stop import StopNow, StopRequest
from hpc.store.attempts import begin_attempt, end_attempt
from hpc.store.lease import lease
from hpc.store.ledger import Ledger
from hpc.store.plan import Plan, ShardTask, publish_plan, read_plan
from hpc.store.rundir import RunDir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conditions:
    """What a job leaves its work: who asks it to stop, and how long it may take to."""

    stop: StopRequest | None = None
    """Asked between shards and steps; None asks for the run's STOP file alone."""
    grace_s: float = 120.0
    """Seconds between a wish to stop and the end of the job."""
    patience_s: float = 0.0
    """How long to wait for a lease that another process holds, s."""
    force: bool = False
    """The operator's word that the cause of a crash loop is mended."""

    def stop_of(self, run: RunDir) -> StopRequest:
        """The request to ask."""
        if self.stop is not None:
            return self.stop
        return StopRequest(SingleProcess(), stop_file=run.stop_file, look_every_s=0.0)


@dataclass(frozen=True)
class Work:
    """Everything the work of a stage is given: the run, the plan, the ledger, the attempt."""

    run: RunDir
    plan: Plan
    ledger: Ledger
    attempt: int
    rank: int = 0
    conditions: Conditions = field(default_factory=Conditions)
    element: int | None = None
    """Array element this work belongs to; None for the stage as a whole."""
    stripe: frozenset[str] | None = None
    """Ids of the shards it is to make; None for all."""

    @property
    def stop(self) -> StopRequest:
        """Whom to ask between shards."""
        return self.conditions.stop_of(self.run)

    def todo(self) -> list[ShardTask]:
        """The shards of its part that have no record yet, in plan order."""
        missing = self.ledger.missing(self.plan)
        return [task for task in missing if self.stripe is None or task.id in self.stripe]

    @property
    def extent(self) -> int:
        """Shards of its part."""
        return len(self.plan.shards) if self.stripe is None else len(self.stripe)

    def done(self) -> int:
        """How many of them have a record."""
        return self.extent - len(self.todo())


@dataclass(frozen=True)
class Course:
    """How far the work inside a shard is, for example the steps of a training."""

    done: int
    goal: int | None
    """Where it ends; None while unknown."""
    unit: str
    """What is counted, for example `steps`."""
    per_s: float | None = None
    """Counted in a second, lately."""
    says: str = ""
    """A few words more, for example the loss."""
    when: float | None = None
    """Time of the newest count, seconds since the epoch."""


@dataclass(frozen=True)
class Stage:
    """One stage: what it needs sealed first, how it plans, how it works.

    `work` publishes one record per shard through the ledger. A `collective` stage runs on all
    ranks together, and rank 0 alone keeps lease, plan and ledger.
    """

    name: str
    needs: tuple[str, ...]
    plan: Callable[[RunDir], Plan]
    work: Callable[[Work], None]
    finish: Callable[[Work], None] | None = None
    """What is made once from all shards before sealing, for example a catalogue; idempotent."""
    collective: bool = False
    progress: Callable[[RunDir], int] | None = None
    """Progress inside a shard, for example the step of the newest checkpoint; default: shards."""
    course: Callable[[RunDir], Course | None] | None = None
    """How far the live work is, for an observer; cheap, and None before there is any."""
    reached: Callable[[RunDir], Sequence[float]] | None = None
    """Times of the progress that was kept, s since the epoch; default: those of the records."""


def run_stage(
    run: RunDir,
    stage: Stage,
    rank: int = 0,
    force: bool = False,
    conditions: Conditions | None = None,
) -> str:
    """Bring `stage` as far as it goes and return one line on what was done.

    Safe to call again at any time: finished shards are kept, a sealed stage is left alone.

    Raises:
        IncompleteError: an upstream stage is not sealed, or shards failed in this attempt.
        TransientError: every failed shard failed for a passing reason, such as a full disk.
        RunInUseError: another live process works on this stage.
        CrashLoopError: the last attempts got nowhere; says why.
        StopRequestedError: someone asked to stop; what was finished is kept.
        DataError: there is nothing to plan.
    """
    conditions = conditions or Conditions(force=force)
    require_upstream(run, stage)
    ledger = run.ledger(stage.name)
    if ledger.sealed:
        return f"{stage.name}: sealed, nothing to do"
    if rank > 0:
        return _follow(run, stage, ledger, rank, conditions)
    with lease(run.stage(stage.name) / ".lease.json", conditions.patience_s):
        plan = standing_plan(run, stage)
        left = len(ledger.missing(plan))
        if left:
            attempt(stage, Work(run, plan, ledger, -1, conditions=conditions))
        seal(run, stage, plan)
    return f"{stage.name}: sealed, {left} of {len(plan.shards)} shards made now"


def seal(run: RunDir, stage: Stage, plan: Plan) -> None:
    """Make what belongs to the whole stage, and seal it; idempotent, under the stage's lease.

    Raises:
        IncompleteError: shards are missing; says why they failed.
        TransientError: every failed shard failed for a passing reason.
    """
    ledger = run.ledger(stage.name)
    _require_complete(stage, plan, ledger)
    if stage.finish is not None and not ledger.sealed:
        stage.finish(Work(run, plan, ledger, attempt=-1))
    ledger.seal(plan)


def require_upstream(run: RunDir, stage: Stage) -> None:
    """Raise unless every stage that `stage` needs is sealed."""
    for need in stage.needs:
        if not run.ledger(need).sealed:
            raise IncompleteError(
                f"{stage.name} needs {need}, which is not sealed; "
                f"run `sarhpc {need} {run.root}` or `sarhpc resume {run.root}` first"
            )


def standing_plan(run: RunDir, stage: Stage) -> Plan:
    """The published plan of `stage`, made now if there is none.

    A published plan stands as it is: planning again could read inputs that changed since. An
    empty one is never published, so that mended inputs can still be planned.

    Raises:
        DataError: the plan has no shards; names what was left out and why.
    """
    path = run.plan_file(stage.name)
    if not path.exists():
        plan = stage.plan(run)
        if not plan.shards:
            raise DataError(_nothing_planned(plan))
        publish_plan(plan, path)
    return read_plan(path)


def _nothing_planned(plan: Plan) -> str:
    why = "; ".join(f"{name}: {reason}" for name, reason in list(plan.rejected.items())[:5])
    return (
        f"{plan.stage}: the plan has no shards, "
        + (f"{len(plan.rejected)} inputs were left out ({why})" if why else "no input was found")
        + "; mend the inputs, or the configuration in a new run, and start the stage again"
    )


def _follow(run: RunDir, stage: Stage, ledger: Ledger, rank: int, conditions: Conditions) -> str:
    path = run.plan_file(stage.name)
    if path.exists() and not ledger.missing(read_plan(path)):
        # An attempt died between record and seal: rank 0 only seals, and would never be met.
        return f"{stage.name}: rank {rank} has nothing to do"
    empty = Plan(stage.name, ())
    stage.work(Work(run, empty, ledger, attempt=-1, rank=rank, conditions=conditions))
    return f"{stage.name}: rank {rank} done"


def attempt(stage: Stage, work: Work) -> None:
    """Do the work of one attempt, and note how it began and how it ended.

    Raises:
        CrashLoopError: the last attempts got nowhere.
        StopRequestedError: the work was interrupted; a StopNow out of it becomes this.
    """
    directory = work.run.stage(stage.name)
    begun = begin_attempt(
        directory, _progress(stage, work), force=work.conditions.force, element=work.element
    )
    code, reason, stopped = 1, "unknown", None
    try:
        _do(stage, replace(work, attempt=begun.number))
        left = len(work.todo())
        code, reason = (IncompleteError.exit_code, f"{left} shards left") if left else (0, "done")
    except BaseException as error:
        code = exit_code_of(error)
        reason = f"{type(error).__name__}: {error}"
        stopped = error.reason if isinstance(error, StopRequestedError) else None
        raise
    finally:
        end_attempt(directory, begun, _progress(stage, work), code, reason, stopped)


def _do(stage: Stage, work: Work) -> None:
    try:
        stage.work(work)
    except StopNow as stop:
        raise interrupted(stage.name, stop) from None


def interrupted(stage: str, stop: StopNow) -> StopRequestedError:
    """What a StopNow out of work that saves nothing on the way means for its job."""
    return StopRequestedError(
        f"{stage} was interrupted ({stop.reason.name}); what it had published stands",
        requeue=stop.reason.requeues,
        reason=stop.reason.name,
    )


def _progress(stage: Stage, work: Work) -> int:
    return work.done() if stage.progress is None else stage.progress(work.run)


def _require_complete(stage: Stage, plan: Plan, ledger: Ledger) -> None:
    missing = ledger.missing(plan)
    if not missing:
        return
    failures = ledger.failures()
    why = "; ".join(f"{f.shard}: {f.error}: {f.message}" for f in list(failures.values())[:3])
    passing = failures and all(f.error == TransientError.__name__ for f in failures.values())
    raise (TransientError if passing else IncompleteError)(
        f"{stage.name}: {len(missing)} of {len(plan.shards)} shards are not done"
        + (f" ({len(failures)} failed: {why})" if failures else "")
        + "; `sarhpc resume` tries them again"
    )


def left(run: RunDir, stages: Sequence[Stage]) -> Iterator[Stage]:
    """Stages that are not sealed, in order."""
    return (stage for stage in stages if not run.ledger(stage.name).sealed)
