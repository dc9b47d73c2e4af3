"""An operator's stop: how it reaches the jobs of a run, and how `resume` removes it."""

from __future__ import annotations

import os

from hpc.store.local_jobs import mark_local_jobs_stopped
from hpc.store.rundir import RunDir
from hpc.store.submissions import (
    job_ids,
    lifted_stop,
    next_number,
    record_stopped_jobs,
)
from sarhpc.launch.slurm import queued_jobs, record_ending_jobs


def request_stop(run: RunDir) -> None:
    """Request that all work on the run saves and ends; sticky until `resume`."""
    descriptor = os.open(run.stop_file, os.O_CREAT | os.O_WRONLY, 0o600)
    os.close(descriptor)


def cancel_jobs(run: RunDir, *, now: bool) -> int:
    """Ask the run to stop, sticky until `resume`, and take its jobs out of the queue.

    Running jobs are signalled to save a checkpoint and exit; with `now` Slurm cancels them at once.
    """
    from hpc.cluster import slurm

    run.stop_file.touch(mode=0o600)
    jobs = [job for stage in queued_jobs(run).values() for job in stage]
    running = [job.id for job in jobs if job.state == "RUNNING" and not now]
    others = [job.id for job in jobs if job.id not in running] + _unrecorded_jobs(run)
    if others:
        slurm.cancel(others)
    if running:
        record_stopped_jobs(run, running)
        slurm.signal(running, "TERM")
    print(f"cancelled: {', '.join(others) or 'nothing'}")
    if running:
        print(f"signalled to save and exit: {', '.join(running)}; --now skips the final checkpoint")
    print(f"continue later with: sarhpc resume {run.quoted}")
    return 0


def _unrecorded_jobs(run: RunDir) -> list[str]:
    """Jobs of a submission whose command died before it published its record."""
    from hpc.cluster import slurm
    from hpc.cluster.chain import submission_token

    number = next_number(run)
    if not any((run.root / "submit").glob(f"{number:03d}-*.sbatch")):
        return []
    mark = f":{submission_token(run, number)}-"
    return [job.id for job in slurm.queue() if mark in job.comment]


def lift_stop(run: RunDir) -> None:
    """Remove an operator's stop. Jobs that may have seen it are recorded as ending.

    The stop is first renamed: a job that starts from then on does not see it, and a command that
    dies in between leaves a trace for the next one.

    Raises:
        SlurmUnavailableError: Slurm does not answer, so nobody knows which jobs run; repeat it.
    """
    if run.stop_file.exists():
        mark_local_jobs_stopped(run)
        if job_ids(run):
            os.replace(run.stop_file, lifted_stop(run))
        else:
            run.stop_file.unlink(missing_ok=True)
    record_ending_jobs(run)
