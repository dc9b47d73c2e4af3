"""Where a run stands: what lies on disk, one question to the queue, at most one to accounting.

The disk is the truth. The queue tells who works or waits and why; accounting is asked only about
jobs that are gone without having said how they ended. Without an answer from either the state on
disk is shown, with a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hpc.errors import HpcError, IncompleteError
from hpc.job.pipeline import Stage
from hpc.observe.state import StageState, stage_state
from hpc.store.rundir import RunDir
from hpc.store.submissions import SubmittedJob, read_submissions

if TYPE_CHECKING:
    from hpc.cluster.slurm import AccountedJob, QueuedJob

STALLED_S = 600.0
"""A running job without a sign of life for this long is called STALLED."""
STALLED_PULSES = 5.0
"""Where signs of progress are rare, so many times their usual distance."""
WORKING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
STUCK = ("DependencyNeverSatisfied", "JobHeldUser", "JobHeldAdmin", "BadConstraints",
         "PartitionDown", "PartitionInactive", "PartitionTimeLimit", "PartitionNodeLimit",
         "AccountNotAllowed", "QOSNotAllowed", "AssociationJobLimit", "launch failed",
         "launch_failed_requeued_held", "job requeued in held state",
         "job_requeued_in_held_state")  # fmt: skip
"""Reasons that do not pass by themselves."""
CLEAN = ("COMPLETED", "REQUEUED")


class Scheduler(Protocol):
    """What status asks of the cluster; `hpc.cluster.slurm` answers it."""

    def queue(self, ids: Sequence[str] | None = None, *, retries: int = 1) -> list[QueuedJob]:
        """Jobs of `ids` that wait or run."""

    def accounting(self, ids: Sequence[str], since: str) -> list[AccountedJob]:
        """Every start of the jobs of `ids` since a time, RFC 3339."""


@dataclass(frozen=True)
class Queue:
    """What the queue says of the jobs of one stage."""

    jobs: tuple[str, ...] = ()
    """Ids of its jobs; of an array the part before `_`."""
    working: int = 0
    """Jobs and array elements that run."""
    waiting: int = 0
    """Jobs and array elements that wait."""
    reasons: tuple[str, ...] = ()
    """Why they wait, most frequent first."""
    restarts: int = 0
    """Most starts after the first of any of them."""
    nodes: str = ""
    """Nodes of the first that runs."""
    time_left_s: int | None = None
    """Shortest time left of any that runs, s."""
    elapsed_s: int | None = None
    """Longest time that any of them has been running, s."""


@dataclass(frozen=True)
class StageStatus:
    """Where one stage stands, with the queue's word.

    States: those of the disk (COMPLETE, RUNNING, FAILED, PARTIAL, LOST, READY, WAITING), and
    PENDING, REQUEUED (waits for another start), BLOCKED (waits for what never comes), STALLED
    (its job runs, its work gives no sign of life).
    """

    state: str
    disk: StageState
    queue: Queue = field(default_factory=Queue)
    says: str | None = None
    """One line on what is wrong, and what to type."""

    def to_json(self) -> dict[str, Any]:
        """The state as `status --json` shows it."""
        disk = dict(vars(self.disk))
        progress = disk.pop("progress")
        disk["course"] = None if progress is None else progress.to_json()
        return {**disk, "state": self.state, "queue": vars(self.queue), "says": self.says}


@dataclass(frozen=True)
class RunStatus:
    """Where every stage of a run stands."""

    run: RunDir
    stages: tuple[StageStatus, ...]
    profile: str | None = None
    """Cluster of the newest submission; None if there was none."""
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every stage is sealed."""
        return all(stage.state == "COMPLETE" for stage in self.stages)

    @property
    def stopped(self) -> bool:
        """Whether an operator asked to stop."""
        return self.run.stop_file.exists()

    def to_json(self) -> dict[str, Any]:
        """The status as `status --json` shows it."""
        return {
            "run": str(self.run.root),
            "profile": self.profile,
            "stopped": self.stopped,
            "notes": list(self.notes),
            "stages": [stage.to_json() for stage in self.stages],
        }


def run_status(
    run: RunDir, stages: Sequence[Stage], scheduler: Scheduler | None = None
) -> RunStatus:
    """Status of `stages`; asks `scheduler` (Slurm) only if there were submissions to it."""
    disks = [stage_state(run, stage) for stage in stages]
    submissions = read_submissions(run)
    open_names = {disk.name for disk in disks if disk.state != "COMPLETE"}
    jobs = [
        job
        for record in submissions
        if record.executor == "slurm"
        for job in record.jobs
        if job.stage in open_names
    ]
    profile = submissions[-1].profile if submissions else None
    if not jobs:
        return RunStatus(run, tuple(StageStatus(d.state, d, says=_advice(run, d)) for d in disks),
                         profile)  # fmt: skip
    view = _Cluster(run, scheduler or cluster_scheduler(), jobs)
    return RunStatus(run, tuple(view.join(disk) for disk in disks), profile, tuple(view.notes))


def cluster_scheduler() -> Scheduler:
    """Slurm, as the scheduler to ask."""
    from hpc.cluster import slurm

    return slurm


class _Cluster:
    """The queue's answer and, if it takes one, that of accounting; each asked once."""

    def __init__(self, run: RunDir, scheduler: Scheduler, jobs: Sequence[SubmittedJob]) -> None:
        self.run, self.jobs, self.notes = run, jobs, list[str]()
        self._scheduler = scheduler
        self._rows: dict[str, list[QueuedJob]] | None = None
        self._ended: dict[str, AccountedJob] | None = None
        try:
            rows = scheduler.queue(sorted({job.job_id for job in jobs}, key=_number), retries=1)
            self._rows = {}
            for row in rows:
                if not row.ended:
                    self._rows.setdefault(row.job_id, []).append(row)
        except HpcError as error:
            self.notes.append(f"the queue gives no answer, this is what lies on disk: {error}")

    def join(self, disk: StageState) -> StageStatus:
        """The state on disk and the queue's word on it."""
        mine = [job for job in self.jobs if job.stage == disk.name]
        if disk.state == "COMPLETE" or not mine or self._rows is None:
            return StageStatus(disk.state, disk, says=_advice(self.run, disk))
        live = [job for job in mine if job.job_id in self._rows]
        if live:
            queue = _summed([row for job in live for row in self._rows[job.job_id]])
            state = _live_state(disk, queue, again=all(job.successor for job in live))
            return StageStatus(state, disk, queue, _says(self.run, state, disk, queue))
        if disk.state in ("RUNNING", "FAILED"):
            return StageStatus(disk.state, disk, says=_advice(self.run, disk))
        return self._gone(disk, mine[-1].job_id)

    def _gone(self, disk: StageState, job: str) -> StageStatus:
        """State of a stage whose newest job is out of the queue and left no trouble on disk."""
        ended = self._account().get(job)
        queue = Queue(jobs=(job,))
        resume = f"go on with: sarhpc resume {self.run.root}"
        if ended is not None and ended.state not in CLEAN:
            if disk.state == "WAITING" and ended.exit_code == f"{IncompleteError.exit_code}:0":
                return StageStatus("WAITING", disk, queue)  # it left for want of its upstream
            state = "PARTIAL" if ended.state == "CANCELLED" else "FAILED"
            hint = " (Slurm could not open its log)" if ended.exit_code == "0:53" else ""
            words = f"job {job} ended {ended.state} with exit {ended.exit_code}{hint}; {resume}"
            return StageStatus(state, disk, queue, words)
        # A job that ended well without sealing was asked to stop; one that never wrote is lost.
        if disk.attempts == 0 or disk.state == "LOST":
            words = f"job {job} is gone and left no word; {resume}"
            return StageStatus("LOST", disk, queue, words)
        return StageStatus(disk.state, disk, queue, None if disk.state == "PARTIAL" else resume)

    def _account(self) -> dict[str, AccountedJob]:
        """The newest accounting row of each job out of the queue, by the id it was given."""
        if self._ended is None:
            assert self._rows is not None
            gone = sorted({j.job_id for j in self.jobs if j.job_id not in self._rows}, key=_number)
            since = str(self.run.info.get("created", "1970-01-01T00:00:00Z"))
            try:
                found = self._scheduler.accounting(gone, since)
            except HpcError as error:
                found = []
                self.notes.append(f"accounting gives no answer: {error}")
            self._ended = _worst(found)
        return self._ended


def _number(job: str) -> int:
    return int(job) if job.isdigit() else 0


def _worst(rows: Sequence[AccountedJob]) -> dict[str, AccountedJob]:
    """For each job its last end; of an array the one that ended badly, if one did."""
    # By their ends: a job requeued and then cancelled while it waited has no start (22.05).
    last = {row.id: row for row in sorted(rows, key=lambda row: row.ended or "~")}
    found: dict[str, AccountedJob] = {}
    for row in sorted(last.values(), key=lambda row: row.state in CLEAN, reverse=True):
        found[row.job_id] = row
    return found


def _summed(rows: Sequence[QueuedJob]) -> Queue:
    working = [row for row in rows if row.state in WORKING]
    waiting = [row for row in rows if row.state not in WORKING]
    reasons: Counter[str] = Counter()
    for row in waiting:
        reasons[row.reason] += elements_of(row.id)
    lefts = [row.left_s for row in working if row.left_s is not None]
    elapsed = [row.elapsed_s for row in working if row.elapsed_s is not None]
    return Queue(
        jobs=tuple(dict.fromkeys(row.job_id for row in rows)),
        working=len(working),
        waiting=sum(elements_of(row.id) for row in waiting),
        reasons=tuple(reason for reason, _ in reasons.most_common() if reason),
        restarts=max((row.restarts or 0 for row in rows), default=0),
        nodes=working[0].nodes if working else "",
        time_left_s=min(lefts, default=None),
        elapsed_s=max(elapsed, default=None),
    )


def elements_of(job: str) -> int:
    """Array elements that one row of the queue stands for: 6 for `12_[0-4,9%2]`, 1 for `12_3`."""
    _, bracket, inside = job.partition("[")
    if not bracket:
        return 1
    total = 0
    for part in inside.rstrip("]").split("%")[0].split(","):
        first, _, last = part.split(":")[0].partition("-")
        if not first.isdigit():
            return max(total, 1)  # Slurm cuts long lists short with `...`
        total += int(last or first) - int(first) + 1
    return total


def _live_state(disk: StageState, queue: Queue, *, again: bool) -> str:
    """State of a stage with jobs in the queue; `again`: only successors of ended ones wait."""
    if queue.working:
        silent = disk.alive_s if disk.alive_s is not None else queue.elapsed_s
        limit = max(STALLED_S, STALLED_PULSES * (disk.pulse_s or 0.0))
        return "STALLED" if silent is not None and silent > limit else "RUNNING"
    if disk.holder:
        return "RUNNING"
    if queue.reasons and all(is_stuck(reason) for reason in queue.reasons):
        return "BLOCKED"
    return "REQUEUED" if again or queue.restarts else "PENDING"


def is_stuck(reason: str) -> bool:
    """Whether a job that waits for this reason waits for ever."""
    return any(word.lower() in reason.lower() for word in STUCK)


def _says(run: RunDir, state: str, disk: StageState, queue: Queue) -> str | None:
    job = queue.jobs[0]
    if state == "BLOCKED":
        return (
            f"job {job} waits for ever ({queue.reasons[0]}); "
            f"mend the chain with: sarhpc resume {run.root}"
        )
    if state == "STALLED":
        return (
            f"job {job} gives no sign of life; look at sarhpc logs {run.root} --stage {disk.name}, "
            f"then: scancel {job}; sarhpc resume {run.root}"
        )
    return disk.trouble


def _advice(run: RunDir, disk: StageState) -> str | None:
    """One line on what is wrong with a stage without jobs in the queue."""
    if disk.state == "LOST":
        return f"its last attempt ended without a word; go on with: sarhpc resume {run.root}"
    return None if disk.holder else disk.trouble
