"""Submissions: which jobs were submitted for which stages, one file per submission.

`RUN/submissions/NNN.json` is published once and never rewritten, so that every job, however often
it is requeued, finds the same assignment of shards: a list that changed meanwhile would assign some
shards to two elements and others to none.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpc.documents import built, read_json
from hpc.errors import HpcError, TransientError, VerificationError
from hpc.publish import publish_json
from hpc.store.lease import live_holder
from hpc.store.rundir import RunDir

SUBMISSION_SCHEMA = "sarhpc.submission/1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubmittedJob:
    """One job, or one job array, of one stage."""

    stage: str
    job_id: str
    """Slurm's job id; of an array the part before `_`."""
    elements: int | None
    """Elements of this array, numbered from 0 by Slurm; None if the job is not an array."""
    dependency: str | None
    """Such as `afterany:122:123`."""
    script: str
    """The submitted script, relative to the run directory."""
    logs: str
    """Log of task `%t` in attempt `%r` of job `%j` (an array's: job `%A`, element `%a`), relative
    to the run directory. Slurm never sees this pattern; the script fills in `%r` itself."""
    tasks: int
    """Processes of the job; of an array, of each element."""
    gpus: int
    """GPUs of the job on all its nodes; of an array, of each element."""
    first: int = 0
    """Number of this array's element 0 within the stage, when a stage needs several arrays."""
    successor: int = 0
    """0 for the first job of a stage, n for its n-th successor, which continues where it ended."""
    time_min: int | None = None
    """Requested time limit, min; None if unknown."""


@dataclass(frozen=True)
class SubmissionRecord:
    """All jobs submitted by one command."""

    number: int
    submitted: str
    """RFC 3339 UTC."""
    executor: str
    profile: str
    """Name of the profile."""
    token: str
    """Marks the jobs in Slurm: the comment of job n is `sarhpc:<run>:<stage>:<token>-<n>`."""
    jobs: tuple[SubmittedJob, ...]
    requeue: str = "none"
    """How a job is requeued after it saved: `scontrol`, `chain` or `none` (see the profile)."""
    profile_file: str = ""
    """Where the profile was read from."""
    grace_s: float = 120.0
    """Seconds between a stop request and the end of a job (see the profile)."""
    code: str | None = None
    """Code snapshot the jobs import from, relative to the run directory."""
    shards: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Stage of an array -> its shards without a record at submission; absent if not planned."""
    refused: tuple[str, ...] = ()
    """Stages that the command meant to submit and Slurm refused; absent from most files."""
    adopted: tuple[str, ...] = ()
    """Jobs among them that a command which died had submitted; absent from most files."""
    root: str = ""
    """The run directory then, where its jobs work; empty in submissions of before."""

    def of(self, stage: str) -> list[SubmittedJob]:
        """Jobs of `stage`, in order of submission."""
        return [job for job in self.jobs if job.stage == stage]

    def elements(self, stage: str) -> int:
        """Array elements of `stage` in all its arrays; 1 for a job that is not an array."""
        return sum(job.elements or 1 for job in self.of(stage) if job.successor == 0)


def submissions_directory(run: RunDir) -> Path:
    """Where the submissions of a run are published."""
    return run.root / "submissions"


def submission_path(run: RunDir, number: int) -> Path:
    """Where submission `number` is published."""
    return submissions_directory(run) / f"{number:03d}.json"


def read_submissions(run: RunDir) -> list[SubmissionRecord]:
    """Every submission of a run, oldest first.

    Raises:
        VerificationError: a file there is not a submission.
    """
    paths = sorted(submissions_directory(run).glob("[0-9]*.json"), key=lambda path: int(path.stem))
    return [_parse(path) for path in paths]


def read_submission(run: RunDir, number: int) -> SubmissionRecord:
    """Submission `number` of a run.

    Raises:
        VerificationError: there is none, or the file is not a submission.
    """
    return _parse(submission_path(run, number))


def await_submission(run: RunDir, number: int, timeout_s: float = 120.0) -> SubmissionRecord:
    """Submission `number`, waiting for it: a job may start before the login node published it.

    It waits as long as the submitting command lives, which holds the lease of submissions: a
    controller may answer each of many `sbatch` only after half a minute.

    Args:
        run: the run.
        number: of the submission.
        timeout_s: how long to wait while no command holds that lease, s.

    Raises:
        TransientError: it did not appear; the submitting command died or the file system lags.
    """
    until, logged = time.monotonic() + timeout_s, False
    while not submission_path(run, number).exists():
        submitter = submitting_command(run)
        if submitter is not None:
            until = time.monotonic() + timeout_s
            if not logged:
                _log.info("waiting for submission %d by %s", number, submitter)
                logged = True
        elif time.monotonic() >= until:
            raise TransientError(
                f"{submission_path(run, number)} did not appear in {timeout_s:.0f} s and no "
                f"command submits for this run; the one that did has died: `sarhpc resume "
                f"{run.quoted}` completes it"
            )
        time.sleep(0.5)
    return read_submission(run, number)


def submission_lease(run: RunDir) -> Path:
    """The lease of the command that submits for a run."""
    return submissions_directory(run) / ".lease.json"


def submitting_command(run: RunDir) -> str | None:
    """`process PID on HOST` while a command submits for the run, else None."""
    return live_holder(submission_lease(run))


def stopped_jobs(run: RunDir) -> frozenset[str]:
    """Ids of the jobs and array elements that received a stop while they ran."""
    path = _stopped_file(run)
    return frozenset(read_json(path)["jobs"]) if path.exists() else frozenset()


def record_stopped_jobs(run: RunDir, ids: Iterable[str]) -> None:
    """Record that those jobs received a stop: they end soon, whatever the queue shows now."""
    known = stopped_jobs(run)
    if not known.issuperset(ids := frozenset(ids)):
        publish_json(_stopped_file(run), {"jobs": sorted(known | ids)})


def lifted_stop(run: RunDir) -> Path:
    """An operator's stop that was removed, until the jobs that saw it are recorded."""
    return submissions_directory(run) / "stop-lifted"


def _stopped_file(run: RunDir) -> Path:
    return submissions_directory(run) / "stopped.json"


def element_number(record: SubmissionRecord, array_id: str, index: int) -> int:
    """Number within its stage of Slurm's array element `<array_id>_<index>`.

    Raises:
        HpcError: the submission has no such array.
    """
    for job in record.jobs:
        if job.job_id == array_id:
            return job.first + index
    raise HpcError(f"submission {record.number} has no array {array_id}; resume the run")


def next_number(run: RunDir) -> int:
    """Number of the next submission."""
    return max((record.number for record in read_submissions(run)), default=-1) + 1


def publish_submission(run: RunDir, record: SubmissionRecord) -> Path:
    """Publish `record` and return its path; it is never replaced.

    Raises:
        HpcError: another submission has that number.
    """
    path = submission_path(run, record.number)
    if path.exists():
        if _parse(path) == record:
            return path
        raise HpcError(
            f"{path} exists and is never rewritten; another command is submitting for {run.root}: "
            f"check with `sarhpc status {run.quoted}`"
        )
    document = {"schema": SUBMISSION_SCHEMA, **dataclasses.asdict(record)}
    # Code of before does not know these fields.
    rare = ("refused", "adopted")
    publish_json(path, {k: v for k, v in document.items() if k not in rare or v})
    return path


def stripe(
    record: SubmissionRecord, stage: str, element: int, planned: Sequence[str] = ()
) -> list[str]:
    """Shards of array element `element` of `stage`: every n-th, from its own number.

    Args:
        record: of the submission that the element belongs to.
        stage: of the array.
        element: number within the stage: `SubmittedJob.first` + Slurm's array index.
        planned: ids of the stage's plan, used when the submission was made before the plan. A plan
            never changes, so all elements divide the same list.

    Raises:
        HpcError: `stage` has no such element in this submission.
    """
    elements = record.elements(stage)
    if not 0 <= element < elements:
        raise HpcError(
            f"submission {record.number} has no element {element} of {stage}, it has {elements}"
        )
    return list(record.shards.get(stage, tuple(planned))[element::elements])


def submitted_stages(run: RunDir) -> frozenset[str]:
    """Stages that some command submitted, or meant to when Slurm refused."""
    records = read_submissions(run)
    return frozenset(
        stage
        for record in records
        for stage in (*record.refused, *(job.stage for job in record.jobs))
    )


def job_ids(run: RunDir) -> dict[str, SubmittedJob]:
    """Every job ever submitted that works in this directory, by id; an array counts once."""
    here = (record for record in read_submissions(run) if place_of(run, record) == "here")
    return {job.job_id: job for record in here for job in record.jobs}


def moved_submissions(run: RunDir) -> list[SubmissionRecord]:
    """Submissions whose jobs work where the run was before it was moved, and find nothing there."""
    return [record for record in read_submissions(run) if place_of(run, record) == "moved"]


def place_of(run: RunDir, record: SubmissionRecord) -> Literal["here", "moved", "copied"]:
    """Where the jobs of a submission work: here, where this run was before, or in its original."""
    if record.root in ("", str(run.root)):
        return "here"
    then = Path(record.root)
    try:
        if then.samefile(run.root):
            return "here"
        same = RunDir(then).info.get("created") == run.info.get("created")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "moved"
    except PermissionError:
        return "copied"
    return "copied" if same else "moved"


def _parse(path: Path) -> SubmissionRecord:
    try:
        document: dict[str, Any] = read_json(path)
        schema = document.pop("schema")
        if schema != SUBMISSION_SCHEMA:
            raise VerificationError(f"{path} has schema {schema}, not {SUBMISSION_SCHEMA}")
        return built(SubmissionRecord, document)
    except FileNotFoundError as error:
        raise VerificationError(f"no submission {path}; see {path.parent}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerificationError(f"{path} is not a submission: {error!r}") from error
