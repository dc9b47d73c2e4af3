"""Array elements: many jobs share the shards of one stage, and the last of them seals it.

An element holds its own lease and makes its stripe of shards. The element that finds no shard
missing after its own takes the stage's lease and seals; doing that twice is harmless.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from hpc.errors import IncompleteError, RunInUseError
from hpc.job.pipeline import (
    JobContext,
    Stage,
    Work,
    ensure_plan,
    require_upstream,
    run_attempt,
    seal,
)
from hpc.job.stop import StopRequest, interrupt_work
from hpc.store.lease import lease
from hpc.store.plan import Plan, read_plan
from hpc.store.rundir import RunDir

log = logging.getLogger(__name__)

PLAN_TIMEOUT_S = 1800.0
"""Seconds an element waits for the plan that another one makes."""


def run_element(
    run: RunDir,
    stage: Stage,
    element: int,
    part: Callable[[Plan], Sequence[str]],
    context: JobContext | None = None,
) -> str:
    """Make the shards of one array element, seal the stage if they were the last; a summary line.

    Args:
        run: the run.
        stage: a sharded stage.
        element: number of this element within the stage.
        part: ids of its shards, given the stage's plan.
        context: of the job.

    Raises:
        IncompleteError: an upstream stage is not sealed, or some of its shards failed.
        RunInUseError: another live process is this element.
        CrashLoopError: the last attempts of this element made no progress.
        StopRequestedError: a stop was requested; what was finished is kept.
    """
    context = context or JobContext()
    require_upstream(run, stage)
    ledger = run.ledger(stage.name)
    if ledger.sealed:
        return f"{stage.name}: sealed, nothing to do"
    path = run.stage(stage.name) / f".lease-{element}.json"
    with lease(path, context.lease_timeout_s, interrupt_work) as held:
        plan = _shared_plan(run, stage, context.stop_request(run))
        stripe = frozenset(part(plan))
        ledger = run.ledger(stage.name, held)
        work = Work(
            run, plan, ledger, -1, context=context, element=element, stripe=stripe, lease=held
        )
        mine = len(work.todo())
        if mine:
            run_attempt(stage, work)
        _require_done(stage, work)
    missing = len(ledger.missing(plan))
    done = f"{stage.name}: element {element} made {mine} of its {len(stripe)} shards now"
    if missing:
        return f"{done}, {missing} remain for other elements"
    return f"{done}, {_seal(run, stage, plan)}"


def _shared_plan(run: RunDir, stage: Stage, stop: StopRequest) -> Plan:
    """The stage's plan; one element makes it while the others wait, as all start together."""
    path = run.plan_file(stage.name)
    until = time.monotonic() + PLAN_TIMEOUT_S
    while not path.exists():
        try:
            with lease(run.stage(stage.name) / ".lease-plan.json") as held:
                return ensure_plan(run, stage, held)
        except RunInUseError:
            if time.monotonic() >= until or stop.agree() is not None:
                raise
            time.sleep(1.0)
    return read_plan(path)


def _require_done(stage: Stage, work: Work) -> None:
    todo = work.todo()
    if not todo:
        return
    failures = work.ledger.failures()
    failed = [failures[task.id] for task in todo if task.id in failures]
    why = "; ".join(f"{f.shard}: {f.error}: {f.message}" for f in failed[:3])
    raise IncompleteError(
        f"{stage.name}: element {work.element} did not finish {len(todo)} of its shards"
        + (f" ({len(failed)} failed: {why})" if failed else "")
        + "; `sarhpc resume` tries them again"
    )


def _seal(run: RunDir, stage: Stage, plan: Plan) -> str:
    try:
        with lease(run.stage(stage.name) / ".lease.json") as held:
            if not run.ledger(stage.name).sealed:
                seal(run, stage, plan, held)
    except RunInUseError:
        # If that element dies first, Slurm starts it again and it seals then.
        return "another element seals"
    return "sealed"
