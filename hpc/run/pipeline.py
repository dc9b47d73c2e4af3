"""The pipeline: stages in order, each run from what the last one left, and what is left to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hpc.errors import DataError, IncompleteError, TransientError, exit_code_of
from hpc.run.attempts import begin_attempt, end_attempt, last_trouble, read_attempts
from hpc.run.lease import lease, live_holder
from hpc.run.ledger import Ledger
from hpc.run.plan import Plan, planned_shards, publish_plan, read_plan
from hpc.run.rundir import RunDir

log = logging.getLogger(__name__)

READ_AT_A_GLANCE = 1000
"""Most single records that `stage_state` reads; on a shared file system each costs a round trip."""


@dataclass(frozen=True)
class Work:
    """Everything the work of a stage is given: the run, the plan, the ledger, the attempt."""

    run: RunDir
    plan: Plan
    ledger: Ledger
    attempt: int
    rank: int = 0


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


def run_stage(run: RunDir, stage: Stage, rank: int = 0, force: bool = False) -> str:
    """Bring `stage` as far as it goes and return one line on what was done.

    Safe to call again at any time: finished shards are kept, a sealed stage is left alone.

    Raises:
        IncompleteError: an upstream stage is not sealed, or shards failed in this attempt.
        TransientError: every failed shard failed for a passing reason, such as a full disk.
        RunInUseError: another live process works on this stage.
        DataError: there is nothing to plan.
    """
    require_upstream(run, stage)
    ledger = run.ledger(stage.name)
    if ledger.sealed:
        return f"{stage.name}: sealed, nothing to do"
    if rank > 0:
        return _follow(run, stage, ledger, rank)
    with lease(run.stage(stage.name) / ".lease.json"):
        plan = standing_plan(run, stage)
        left = len(ledger.missing(plan))
        if left:
            _attempt(run, stage, plan, ledger, force)
        _require_complete(stage, plan, ledger)
        if stage.finish is not None:
            stage.finish(Work(run, plan, ledger, attempt=-1))
        ledger.seal(plan)
    return f"{stage.name}: sealed, {left} of {len(plan.shards)} shards made now"


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


def _follow(run: RunDir, stage: Stage, ledger: Ledger, rank: int) -> str:
    path = run.plan_file(stage.name)
    if path.exists() and not ledger.missing(read_plan(path)):
        # An attempt died between record and seal: rank 0 only seals, and would never be met.
        return f"{stage.name}: rank {rank} has nothing to do"
    empty = Plan(stage.name, ())
    stage.work(Work(run, empty, ledger, attempt=-1, rank=rank))
    return f"{stage.name}: rank {rank} done"


def _attempt(run: RunDir, stage: Stage, plan: Plan, ledger: Ledger, force: bool) -> None:
    directory = run.stage(stage.name)
    attempt = begin_attempt(directory, _progress(run, stage, plan, ledger), force=force)
    code, reason = 1, "unknown"
    try:
        stage.work(Work(run, plan, ledger, attempt.number))
        left = len(ledger.missing(plan))
        code, reason = (IncompleteError.exit_code, f"{left} shards left") if left else (0, "done")
    except BaseException as error:
        code = exit_code_of(error)
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        end_attempt(directory, attempt, _progress(run, stage, plan, ledger), code, reason)


def _progress(run: RunDir, stage: Stage, plan: Plan, ledger: Ledger) -> int:
    if stage.progress is not None:
        return stage.progress(run)
    return len(plan.shards) - len(ledger.missing(plan))


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


@dataclass(frozen=True)
class StageState:
    """Where one stage stands, derived from disk alone.

    States: WAITING (upstream), READY, RUNNING, PARTIAL, FAILED, COMPLETE.
    """

    name: str
    state: str
    done: int
    planned: int
    samples: int | None
    """None while there are too many single records to read them all for a glance."""
    rejected: int | None
    """As `samples`."""
    failed: int
    holder: str | None = None
    trouble: str | None = None
    """How the last attempt ended, if it ended badly."""


def stage_state(run: RunDir, stage: Stage) -> StageState:
    """State of one stage from its plan, ledger and lease."""
    ledger = run.ledger(stage.name)
    if ledger.sealed:
        return _complete_state(stage, ledger)
    directory = run.stage(stage.name)
    done = len(ledger.recorded_ids())
    failed = len(ledger.failures())
    holder = live_holder(directory / ".lease.json")
    attempts = read_attempts(directory)
    trouble = last_trouble(attempts)
    records = ledger.records().values() if done <= READ_AT_A_GLANCE else None
    waits = any(not run.ledger(need).sealed for need in stage.needs)
    unbegun = "WAITING" if waits else "READY"
    stands = "FAILED" if failed or trouble else "PARTIAL" if done or attempts else unbegun
    return StageState(
        stage.name,
        "RUNNING" if holder else stands,
        done,
        planned_shards(run.plan_file(stage.name)),
        None if records is None else sum(record.samples for record in records),
        None if records is None else sum(sum(record.rejected.values()) for record in records),
        failed,
        holder,
        trouble,
    )


def _complete_state(stage: Stage, ledger: Ledger) -> StageState:
    # A sealed stage has a record for each shard of its plan, so the plan need not be read.
    shards, samples, rejected = ledger.totals()
    return StageState(stage.name, "COMPLETE", shards, shards, samples, rejected, failed=0)


def left(run: RunDir, stages: Sequence[Stage]) -> Iterator[Stage]:
    """Stages that are not sealed, in order."""
    return (stage for stage in stages if not run.ledger(stage.name).sealed)
