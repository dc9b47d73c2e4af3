"""What a command has started: the jobs, as programs receive them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc.store.rundir import RunDir
from hpc.store.submissions import SubmissionRecord

if TYPE_CHECKING:
    from hpc.cluster.submit import Submission


@dataclass(frozen=True)
class StartedJob:
    """One job, or job array."""

    stage: str
    """Its stage; of a driver on this machine `line:FIRST:LAST`."""
    id: str
    """Slurm's job id; of a local job the process id."""
    depends_on: tuple[str, ...] = ()
    """Ids of the jobs that it waits for."""
    elements: int | None = None
    """Elements of an array."""
    logs: tuple[str, ...] = ()
    """Its logs; of a job of Slurm a pattern, see `SubmittedJob.logs`."""
    new: bool = True
    """Whether this command has started it; one that was there already is left alone."""

    def to_json(self) -> dict[str, Any]:
        """The job as `--json` shows it."""
        return {**vars(self), "depends_on": list(self.depends_on), "logs": list(self.logs)}


Note = Callable[[StartedJob], object]
"""Receives each job."""


def no_note(_: StartedJob) -> None:
    """For a caller without a use for them."""


def note_submission(
    note: Note, run: RunDir, record: SubmissionRecord | None, queued: Mapping[str, Sequence[str]]
) -> None:
    """Report the jobs of a submission, and those that were in the queue before."""
    for stage, jobs in queued.items():
        for job in jobs:
            note(StartedJob(stage, job, new=False))
    for one in () if record is None else record.jobs:
        _, *before = (one.dependency or "").split(":")
        logs = (str(run.root / one.logs),)
        note(StartedJob(one.stage, one.job_id, tuple(before), one.elements, logs))


def note_local_job(note: Note, submission: Submission, what: str) -> None:
    """Report a job of this machine."""
    logs = tuple(str(path) for path in submission.stderr)
    note(StartedJob(what, submission.job_id, logs=logs))
