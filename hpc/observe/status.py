"""The status of a run: its files, one query of the queue, at most one of accounting.

The files are authoritative. The queue shows which jobs run or wait and why; accounting is queried
only for jobs that left the queue without an end row. If either does not answer, the state on disk
is shown with a note.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hpc.errors import HpcError, IncompleteError
from hpc.job.pipeline import Stage
from hpc.observe.queue import Queue, is_stuck, queue_summary
from hpc.observe.state import StageState, stage_state
from hpc.store.local_jobs import live_local_jobs, newest_local_job
from hpc.store.rundir import RunDir
from hpc.store.submissions import (
    SubmissionRecord,
    SubmittedJob,
    moved_submissions,
    next_number,
    place_of,
    read_submissions,
    submitting_command,
)

if TYPE_CHECKING:
    from hpc.cluster.slurm import AccountedJob, QueuedJob

STALLED_S = 600.0
"""A running job without a heartbeat for this long is STALLED."""
STALLED_INTERVALS = 5.0
"""If progress is rarer than that, the limit as a multiple of its median interval."""
ENDED_WELL = ("COMPLETED", "REQUEUED")
COMING = ("RUNNING", "STALLED", "PENDING", "REQUEUED")
"""States of a stage that a job works on or will."""


class Scheduler(Protocol):
    """The queries that status makes; `hpc.cluster.slurm` implements them."""

    def queue(self, ids: Sequence[str] | None = None, *, retries: int = 1) -> list[QueuedJob]:
        """Jobs of `ids` that wait or run."""

    def accounting(self, ids: Sequence[str], since: str) -> list[AccountedJob]:
        """Every start of the jobs of `ids` since a time, RFC 3339."""


@dataclass(frozen=True)
class StageStatus:
    """State of one stage from its files and the queue.

    States: those of the files (COMPLETE, RUNNING, FAILED, PARTIAL, LOST, READY, WAITING), and
    PENDING, REQUEUED (waits for another start), BLOCKED (its dependency can never be satisfied),
    STALLED (its job runs, but has no heartbeat).
    """

    state: str
    disk: StageState
    queue: Queue = field(default_factory=Queue)
    problem: str | None = None
    """One line: what is wrong, and the command to type."""

    def to_json(self) -> dict[str, Any]:
        """The state as `status --json` shows it."""
        disk, queue = self.disk.to_json(), vars(self.queue)
        return {**disk, "state": self.state, "queue": queue, "says": self.problem}


@dataclass(frozen=True)
class RunStatus:
    """State of every stage of a run."""

    run: RunDir
    stages: tuple[StageStatus, ...]
    profile: str | None = None
    """Cluster of the newest submission; None if there was none."""
    notes: tuple[str, ...] = ()
    on_its_way: bool | None = None
    """Whether a job is queued or running for any unsealed stage; None if Slurm does not answer."""
    requested: frozenset[str] = frozenset()
    """The stages that were submitted or that a driver of this machine was to take."""

    @property
    def complete(self) -> bool:
        """Whether every stage is sealed."""
        return all(stage.state == "COMPLETE" for stage in self.stages)

    @property
    def over(self) -> bool:
        """Whether every stage is sealed, or every requested one and nothing works on the others."""
        return self.complete or (self.at_rest is not None and bool(self.requested))

    @property
    def stopped(self) -> bool:
        """Whether an operator requested a stop."""
        return self.run.stop_file.exists()

    @property
    def idle(self) -> str | None:
        """One line if stages that were asked for are left and nothing works on them, else None."""
        left = self._left
        if not left or self.on_its_way is not False or self.at_rest is not None:
            return None
        note = f"nothing is on its way: no job is queued or running for {', '.join(left)}"
        if self.stopped:
            return note
        resume = f"sarhpc resume {self.run.quoted}"
        again = [stage.disk.name for stage in self.stages if stage.disk.permanent]
        if again:
            return (
                f"{note}; {', '.join(again)} would fail again: do what the message above says "
                f"first, `{resume}` alone repeats it"
            )
        return f"{note}; continue with: {resume}"

    @property
    def at_rest(self) -> str | None:
        """One line if everything that was asked for is done and stages are left, else None."""
        left = self._left
        untouched = all(
            stage.state in ("READY", "WAITING") and not stage.disk.attempts
            for stage in self.stages
            if stage.disk.name in left
        )
        if not left or not untouched or self.on_its_way is not False or {*left} & self.requested:
            return None
        go_on = f"sarhpc run {self.run.quoted}"
        if len(left) == len(self.stages):
            return f"nothing has been started yet; start with: {go_on}"
        return f"the requested stages are complete; for {', '.join(left)}: {go_on}"

    @property
    def _left(self) -> list[str]:
        """The stages that are not sealed."""
        return [stage.disk.name for stage in self.stages if stage.state != "COMPLETE"]

    def to_json(self) -> dict[str, Any]:
        """The status as `status --json` shows it."""
        return {
            "run": str(self.run.root),
            "profile": self.profile,
            "stopped": self.stopped,
            "on_its_way": self.on_its_way,
            "notes": list(self.notes),
            "stages": [stage.to_json() for stage in self.stages],
        }


def run_status(
    run: RunDir, stages: Sequence[Stage], scheduler: Scheduler | None = None
) -> RunStatus:
    """Status of `stages`; queries `scheduler` (Slurm) only if there were submissions to it."""
    disks = [stage_state(run, stage) for stage in stages]
    submissions = read_submissions(run)
    open_names = {disk.name for disk in disks if disk.state != "COMPLETE"}
    jobs = [
        job
        for record in submissions
        if record.executor == "slurm" and place_of(run, record) == "here"
        for job in record.jobs
        if job.stage in open_names
    ]
    profile = submissions[-1].profile if submissions else None
    asked = _requested(run, submissions, [stage.name for stage in stages])
    notes = list(_notes_of_move(run, open_names))
    notes += [line for stage in stages if stage.warnings for line in stage.warnings(run)]
    unrecorded = _unrecorded_jobs(run, scheduler, notes) if open_names else []
    jobs += [job for job in unrecorded if job.stage in open_names]
    if not jobs:
        found = tuple(StageStatus(d.state, d, problem=_disk_problem(run, d)) for d in disks)
        return RunStatus(run, found, profile, tuple(notes), _is_coming(run, found), asked)
    holders = [disk.holder_job for disk in disks if disk.holder_job is not None]
    view = _Cluster(run, scheduler or cluster_scheduler(), jobs, holders)
    found = tuple(view.join(disk) for disk in disks)
    coming = _is_coming(run, found) or (None if view.silent else False)
    return RunStatus(run, found, profile, (*notes, *view.notes), coming, asked)


def _requested(
    run: RunDir, submissions: Sequence[SubmissionRecord], names: Sequence[str]
) -> frozenset[str]:
    """The stages of all submissions, and those of the newest job of this machine."""
    asked = {stage for one in submissions for stage in (*one.refused, *(j.stage for j in one.jobs))}
    what = newest_local_job(run)
    if what is not None:
        kind, *ends = what.split(":")
        first, last = ends if kind == "line" and len(ends) == 2 else (kind, kind)
        if first in names and last in names:
            asked |= {*names[names.index(first) : names.index(last) + 1]}
    return frozenset(asked)


def _is_coming(run: RunDir, stages: Sequence[StageStatus]) -> bool:
    """Whether something works on the run, or waits to, as far as disk and queue show."""
    states = {stage.state for stage in stages}
    return bool(states & set(COMING) or live_local_jobs(run) or submitting_command(run) is not None)


def _unrecorded_jobs(
    run: RunDir, scheduler: Scheduler | None, notes: list[str]
) -> list[SubmittedJob]:
    """Jobs in the queue of a command that died before it recorded them; the queue is read if so.

    It left scripts of the next submission. `resume` finds its jobs by their comment, as here.
    """
    number = next_number(run)
    left = (run.root / "submit").glob(f"{number:03d}-*.sbatch")
    if submitting_command(run) is not None or not any(left):
        return []
    from hpc.cluster.chain import submission_token

    prefix = f"{submission_token(run, number)}-"
    try:
        rows = (scheduler or cluster_scheduler()).queue(None, retries=1)
    except HpcError as error:
        notes.append(f"a submission was not recorded and the queue does not answer: {error}")
        return []
    found = {}
    for row in rows:
        kind, _, rest = row.comment.partition(":")
        head, _, token = rest.rpartition(":")
        if kind == "sarhpc" and token.startswith(prefix) and not row.ended:
            stage = head.rpartition(":")[2]
            found[row.job_id] = SubmittedJob(stage, row.job_id, None, None, "", "", 1, 0)
    if found:
        notes.append(
            f"jobs {', '.join(found)} were submitted by a command that died before it recorded "
            f"them; `sarhpc resume {run.quoted}` adopts them"
        )
    return list(found.values())


def _notes_of_move(run: RunDir, open_names: Collection[str]) -> tuple[str, ...]:
    """A line if jobs were submitted before the run was moved, and not since."""
    if not open_names:
        return ()
    moved = moved_submissions(run)
    if not moved or read_submissions(run)[-1] != moved[-1]:
        return ()
    return (
        f"this run was at {moved[-1].root} when its jobs were submitted, and they work there; "
        f"`sarhpc resume {run.quoted}` cancels them and submits what is left from here",
    )


def cluster_scheduler() -> Scheduler:
    """Slurm as the scheduler."""
    from hpc.cluster import slurm

    return slurm


class _Cluster:
    """The answers of the queue and, if needed, of accounting; each queried once."""

    def __init__(
        self,
        run: RunDir,
        scheduler: Scheduler,
        jobs: Sequence[SubmittedJob],
        holders: Sequence[str] = (),
    ) -> None:
        self.run, self.jobs, self.notes = run, jobs, list[str]()
        self._scheduler = scheduler
        self._rows: dict[str, list[QueuedJob]] | None = None
        self._ended: dict[str, AccountedJob] | None = None
        self.silent = False
        """Whether the queue did not answer."""
        try:
            # A lease may be held by a job that was not submitted here, such as an interactive one.
            ids = {*(job.job_id for job in jobs), *holders}
            rows = scheduler.queue(sorted(ids, key=_number), retries=1)
            self._rows = {}
            for row in rows:
                if not row.ended:
                    self._rows.setdefault(row.job_id, []).append(row)
        except HpcError as error:
            self.silent = True
            self.notes.append(f"no answer from the queue, showing the state on disk: {error}")

    def join(self, disk: StageState) -> StageStatus:
        """The state on disk combined with that of the queue."""
        mine = [job for job in self.jobs if job.stage == disk.name]
        if disk.state == "COMPLETE" or not mine or self._rows is None:
            return StageStatus(disk.state, disk, problem=_disk_problem(self.run, disk))
        live = [job for job in mine if job.job_id in self._rows]
        queue = queue_summary([row for job in live for row in self._rows[job.job_id]])
        if disk.holder_job is not None and not (queue.working or self._works(disk.holder_job)):
            disk = disk.without_holder()  # it is dead; its lease is only not old enough yet
        if live:
            state = _live_state(disk, queue, again=all(job.successor for job in live))
            return StageStatus(state, disk, queue, _job_problem(self.run, state, disk, queue))
        if disk.state in ("RUNNING", "FAILED"):
            return StageStatus(disk.state, disk, problem=_disk_problem(self.run, disk))
        return self._gone(disk, mine[-1].job_id)

    def _works(self, job: str) -> bool:
        """Whether a job runs, by the queue."""
        assert self._rows is not None
        return bool(queue_summary(self._rows.get(job, ())).working)

    def _gone(self, disk: StageState, job: str) -> StageStatus:
        """State of a stage whose newest job left the queue without a recorded failure."""
        ended = self._account().get(job)
        queue = Queue(jobs=(job,))
        resume = f"continue with: sarhpc resume {self.run.quoted}"
        if ended is not None and ended.state not in ENDED_WELL:
            if disk.state == "WAITING" and ended.exit_code == f"{IncompleteError.exit_code}:0":
                return StageStatus("WAITING", disk, queue)  # it ended because its upstream was open
            state = "PARTIAL" if ended.state == "CANCELLED" else "FAILED"
            hint = " (Slurm could not open its log)" if ended.exit_code == "0:53" else ""
            ending = f"job {job} ended {ended.state} with exit {ended.exit_code}{hint}"
            problem = f"{ending}; {disk.failure or resume}"
            return StageStatus(state, disk, queue, problem)
        # A job that succeeded without sealing was stopped; one without an attempt is lost.
        if disk.attempts == 0 or disk.state == "LOST":
            problem = f"job {job} is gone without an end row; {resume}"
            return StageStatus("LOST", disk, queue, problem)
        return StageStatus(disk.state, disk, queue, None if disk.state == "PARTIAL" else resume)

    def _account(self) -> dict[str, AccountedJob]:
        """The decisive accounting row of each job that left the queue, by job id."""
        if self._ended is None:
            assert self._rows is not None
            gone = sorted({j.job_id for j in self.jobs if j.job_id not in self._rows}, key=_number)
            since = str(self.run.info.get("created", "1970-01-01T00:00:00Z"))
            try:
                found = self._scheduler.accounting(gone, since)
            except HpcError as error:
                found = []
                self.notes.append(f"no answer from accounting: {error}")
            self._ended = _worst(found)
        return self._ended


def _number(job: str) -> int:
    return int(job) if job.isdigit() else 0


def _worst(rows: Sequence[AccountedJob]) -> dict[str, AccountedJob]:
    """For each job its last end; of an array that of a failed element, if there is one."""
    # By end time: a job requeued and then cancelled while it waited has no start (22.05).
    last = {row.id: row for row in sorted(rows, key=lambda row: row.ended or "~")}
    found: dict[str, AccountedJob] = {}
    for row in sorted(last.values(), key=lambda row: row.state in ENDED_WELL, reverse=True):
        found[row.job_id] = row
    return found


def _live_state(disk: StageState, queue: Queue, *, again: bool) -> str:
    """State of a stage with jobs in the queue; `again`: only successors of ended jobs wait."""
    if queue.working:
        silent = disk.heartbeat_age_s if disk.heartbeat_age_s is not None else queue.elapsed_s
        limit = max(STALLED_S, STALLED_INTERVALS * (disk.heartbeat_interval_s or 0.0))
        return "STALLED" if silent is not None and silent > limit else "RUNNING"
    if disk.holder:
        return "RUNNING"
    if queue.reasons and all(is_stuck(reason) for reason in queue.reasons):
        return "BLOCKED"
    return "REQUEUED" if again or queue.restarts else "PENDING"


def _job_problem(run: RunDir, state: str, disk: StageState, queue: Queue) -> str | None:
    job = queue.jobs[0]
    if state == "BLOCKED":
        return (
            f"job {job} can never start ({queue.reasons[0]}); "
            f"repair the chain with: sarhpc resume {run.quoted}"
        )
    if state == "STALLED":
        return (
            f"job {job} has no heartbeat; check sarhpc logs {run.quoted} --stage {disk.name}, "
            f"then: scancel {job}; sarhpc resume {run.quoted}"
        )
    return disk.failure


def _disk_problem(run: RunDir, disk: StageState) -> str | None:
    """The problem of a stage without jobs in the queue, in one line."""
    if disk.state == "LOST":
        return f"its last attempt wrote no end row; continue with: sarhpc resume {run.quoted}"
    return None if disk.holder else disk.failure
