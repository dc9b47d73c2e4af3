"""The pipeline: stages in order, each run from what the last one left, and what is left to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hpc.errors import HpcError, IncompleteError
from hpc.run.attempts import begin_attempt, end_attempt
from hpc.run.lease import lease, live_holder
from hpc.run.ledger import Ledger
from hpc.run.plan import Plan, publish_plan, read_plan
from hpc.run.rundir import RunDir

log = logging.getLogger(__name__)


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
        RunInUseError: another live process works on this stage.
        FingerprintMismatchError: the plan standing differs from the one planned now.
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

    A published plan stands as it is: planning again could read inputs that changed since.
    """
    path = run.plan_file(stage.name)
    if not path.exists():
        publish_plan(stage.plan(run), path)
    return read_plan(path)


def _follow(run: RunDir, stage: Stage, ledger: Ledger, rank: int) -> str:
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
        code = error.exit_code if isinstance(error, HpcError) else 1
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
    raise IncompleteError(
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
    samples: int
    rejected: int
    failed: int
    holder: str | None = None


def stage_state(run: RunDir, stage: Stage) -> StageState:
    """State of one stage from its plan, ledger and lease."""
    ledger = run.ledger(stage.name)
    plan_file = run.plan_file(stage.name)
    records = ledger.records()
    planned = len(read_plan(plan_file).shards) if plan_file.exists() else 0
    failed = 0 if ledger.sealed else len(ledger.failures())
    holder = live_holder(run.stage(stage.name) / ".lease.json")
    return StageState(
        stage.name,
        _state(run, stage, ledger, bool(records), failed, holder),
        len(records),
        planned,
        sum(record.samples for record in records.values()),
        sum(sum(record.rejected.values()) for record in records.values()),
        failed,
        holder,
    )


def _state(
    run: RunDir, stage: Stage, ledger: Ledger, begun: bool, failed: int, holder: str | None
) -> str:
    if ledger.sealed:
        return "COMPLETE"
    if holder:
        return "RUNNING"
    if failed:
        return "FAILED"
    if begun:
        return "PARTIAL"
    waits = any(not run.ledger(need).sealed for need in stage.needs)
    return "WAITING" if waits else "READY"


def left(run: RunDir, stages: Sequence[Stage]) -> Iterator[Stage]:
    """Stages that are not sealed, in order."""
    return (stage for stage in stages if not run.ledger(stage.name).sealed)
