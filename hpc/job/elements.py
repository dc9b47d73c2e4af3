"""Array elements: many jobs share the shards of one stage, and the last of them seals it.

An element holds a lease of its own and makes its stripe of shards. Whichever finds nothing missing
after its own part takes the stage's lease and seals; doing that twice is harmless.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from hpc.errors import IncompleteError, RunInUseError
from hpc.job.pipeline import Conditions, Stage, Work, attempt, require_upstream, seal, standing_plan
from hpc.job.stop import StopRequest
from hpc.store.lease import lease
from hpc.store.plan import Plan, read_plan
from hpc.store.rundir import RunDir

log = logging.getLogger(__name__)

PLANNED_WITHIN_S = 1800.0
"""How long an element waits for the plan that another one makes."""


def run_element(
    run: RunDir,
    stage: Stage,
    element: int,
    part: Callable[[Plan], Sequence[str]],
    conditions: Conditions | None = None,
) -> str:
    """Make the shards of one array element, seal the stage if they were the last; one line on it.

    Args:
        run: the run.
        stage: a sharded stage.
        element: number of this element within the stage.
        part: ids of its shards, given the stage's plan.
        conditions: of the job.

    Raises:
        IncompleteError: an upstream stage is not sealed, or some of its shards failed.
        RunInUseError: another live process is this element.
        CrashLoopError: the last attempts of this element got nowhere.
        StopRequestedError: someone asked to stop; what was finished is kept.
    """
    conditions = conditions or Conditions()
    require_upstream(run, stage)
    ledger = run.ledger(stage.name)
    if ledger.sealed:
        return f"{stage.name}: sealed, nothing to do"
    with lease(run.stage(stage.name) / f".lease-{element}.json", conditions.patience_s):
        plan = _shared_plan(run, stage, conditions.stop_of(run))
        stripe = frozenset(part(plan))
        work = Work(run, plan, ledger, -1, conditions=conditions, element=element, stripe=stripe)
        mine = len(work.todo())
        if mine:
            attempt(stage, work)
        _require_done(stage, work)
    left = len(ledger.missing(plan))
    done = f"{stage.name}: element {element} made {mine} of its {len(stripe)} shards now"
    return f"{done}, {left} are left to others" if left else f"{done}, {_seal(run, stage, plan)}"


def _shared_plan(run: RunDir, stage: Stage, stop: StopRequest) -> Plan:
    """The stage's plan; made by one element while the others wait, as all start together."""
    path = run.plan_file(stage.name)
    until = time.monotonic() + PLANNED_WITHIN_S
    while not path.exists():
        try:
            with lease(run.stage(stage.name) / ".lease-plan.json"):
                return standing_plan(run, stage)
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
        f"{stage.name}: element {work.element} left {len(todo)} of its shards"
        + (f" ({len(failed)} failed: {why})" if failed else "")
        + "; `sarhpc resume` tries them again"
    )


def _seal(run: RunDir, stage: Stage, plan: Plan) -> str:
    try:
        with lease(run.stage(stage.name) / ".lease.json"):
            if not run.ledger(stage.name).sealed:
                seal(run, stage, plan)
    except RunInUseError:
        # Should that one die on the way Slurm starts it again, and it seals then.
        return "another element seals"
    return "sealed"
