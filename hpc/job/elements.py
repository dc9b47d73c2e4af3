"""Array elements: many jobs share the shards of one stage, and the last of them seals it.

An element holds its own lease and makes its stripe of shards, by one worker for each GPU of each of
its tasks; the first task holds the lease and hands the shards out. The element that finds no shard
missing after its own takes the stage's lease and seals; doing that twice is harmless. Where what is
missing belongs to elements that never come back, the last living one makes it first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

from hpc.errors import IncompleteError, RunInUseError, TransientError
from hpc.job.attempt import RecordedAttempt
from hpc.job.lost_shards import Siblings, lost_shards
from hpc.job.pipeline import (
    JobContext,
    Stage,
    Work,
    already_sealed,
    attempt_of,
    do_work,
    ensure_plan,
    require_upstream,
    seal,
)
from hpc.job.stop import StopRequest, interrupt_work
from hpc.store.lease import Lease, lease
from hpc.store.plan import Plan, read_plan
from hpc.store.rundir import RunDir

log = logging.getLogger(__name__)

_TRANSIENT = TransientError.__name__
PLAN_TIMEOUT_S = 1800.0
"""Seconds an element waits for the plan that another one makes."""


def run_element(
    run: RunDir,
    stage: Stage,
    element: int,
    part: Callable[[Plan], Sequence[str]],
    context: JobContext | None = None,
    siblings: Siblings | None = None,
) -> str:
    """Make the shards of one array element, seal the stage if they were the last; a summary line.

    Args:
        run: the run.
        stage: a sharded stage.
        element: number of this element within the stage.
        part: ids of its shards, given the stage's plan.
        context: of the job.
        siblings: the other elements, to take over the shards of those that never come back; None
            leaves them to `sarhpc resume`.

    Raises:
        IncompleteError: an upstream stage is not sealed, or some of its shards failed.
        RunInUseError: another live process is this element.
        CrashLoopError: the last attempts of this element made no progress.
        StopRequestedError: a stop was requested; what was finished is kept.
    """
    context = context or JobContext()
    if run.ledger(stage.name).sealed:
        return already_sealed(run, stage)
    with attempt_of(run, stage, context, element) as attempt:
        require_upstream(run, stage)
        path = run.stage(stage.name) / f".lease-{element}.json"
        with lease(path, context.lease_timeout_s, interrupt_work) as held:
            return _Element(run, stage, element, part, context, siblings, held).make(attempt)


def follow_element(
    run: RunDir,
    stage: Stage,
    element: int,
    part: Callable[[Plan], Sequence[str]],
    rank: int,
    context: JobContext | None = None,
) -> str:
    """Work for the first task of an element, which holds its lease, as another of its tasks.

    It ends when the shards of the element have records, or with the first task; a summary line.

    Args:
        run: the run.
        stage: a sharded stage.
        element: number of the element within the stage.
        part: ids of its shards, given the stage's plan.
        rank: of this task within the element.
        context: of the job.
    """
    context = context or JobContext()
    ledger, path = run.ledger(stage.name), run.plan_file(stage.name)
    stop = context.stop_request(run)
    idle = f"{stage.name}: rank {rank} of element {element} has nothing to do"
    until = time.monotonic() + PLAN_TIMEOUT_S
    while not path.exists():
        # The first task says why there is no plan, and its end ends this one.
        if ledger.sealed or time.monotonic() >= until or stop.agree() is not None:
            return idle
        time.sleep(1.0)
    plan = read_plan(path)
    mine = frozenset(part(plan))
    work = Work(run, plan, ledger, -1, rank, context, element, mine)
    if ledger.sealed or not work.todo():
        return idle
    stage.work(work)
    return f"{stage.name}: rank {rank} of element {element} done"


class _Element:
    """One element at work, under its lease."""

    def __init__(
        self,
        run: RunDir,
        stage: Stage,
        element: int,
        part: Callable[[Plan], Sequence[str]],
        context: JobContext,
        siblings: Siblings | None,
        held: Lease,
    ) -> None:
        self.run, self.stage, self.element = run, stage, element
        self.part, self.context, self.siblings = part, context, siblings
        self.lease = held
        self.ledger = run.ledger(stage.name, held)

    @cached_property
    def plan(self) -> Plan:
        """The published plan; not kept while it cannot be read."""
        return read_plan(self.run.plan_file(self.stage.name))

    @cached_property
    def stripe(self) -> frozenset[str]:
        """Ids of its shards."""
        return frozenset(self.part(self.plan))

    def progress(self) -> int:
        """Its shards with a record; once all have one, those of the stage, to count a takeover."""
        if not self.run.plan_file(self.stage.name).exists():
            return 0
        recorded = self.ledger.recorded_ids()
        mine = len(self.stripe & recorded)
        return mine if mine < len(self.stripe) else len(recorded)

    def make(self, attempt: RecordedAttempt) -> str:
        """Make its shards, take over lost ones, seal if none is missing then; a summary line."""
        attempt.settle(self.progress)
        plan = _shared_plan(self.run, self.stage, self.context.stop_request(self.run))
        work = Work(
            self.run,
            plan,
            self.ledger,
            attempt.number,
            0,
            self.context,
            self.element,
            self.stripe,
            self.lease,
        )
        mine = len(work.todo())
        if mine:
            do_work(self.stage, work)
        taken = self._take_over(work)
        _require_done(self.stage, work)
        done = f"{self.stage.name}: element {self.element} made {mine} of its {len(self.stripe)}"
        done += f" shards now{taken}"
        missing = len(self.ledger.missing(plan))
        if missing:
            return f"{done}, {missing} remain for other elements"
        return f"{done}, {_seal(self.run, self.stage, plan)}"

    def _take_over(self, work: Work) -> str:
        """Make the shards of elements that never come back; the summary of it."""
        failures = self.ledger.failures()
        mine = [failures.get(task.id) for task in work.todo()]
        # A shard of its own without a record was tried, and may have failed for good; but where
        # the machine is at fault the others would fail as well.
        if self.siblings is None or any(f is None or f.error == _TRANSIENT for f in mine):
            return ""
        lost = lost_shards(work, self.siblings)
        if not lost:
            return ""
        log.warning(
            "stage=%s element=%d makes %d shards of elements that ended for good (first %s)",
            self.stage.name, self.element, len(lost), min(lost),
        )  # fmt: skip
        taken = replace(work, stripe=lost)
        try:
            # Two elements may both be the last; what they made twice would be harmless (P6).
            with lease(self.run.stage(self.stage.name) / ".lease-lost.json"):
                do_work(self.stage, taken)
        except RunInUseError:
            return ", another element makes lost ones"
        return f" and {len(lost) - len(taken.todo())} lost ones"


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
