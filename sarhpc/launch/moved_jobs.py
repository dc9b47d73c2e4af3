"""Jobs that were submitted before their run was moved: they work where it was, and find nothing."""

from __future__ import annotations

from hpc.store.rundir import RunDir
from hpc.store.submissions import moved_submissions


def cancel_moved_jobs(run: RunDir) -> list[str]:
    """Cancel the jobs in the queue that work where the run was before, say so, and return them.

    Those of a run that this one is a copy of are left alone.

    Raises:
        SlurmUnavailableError: Slurm does not answer.
    """
    from hpc.cluster import slurm

    records = moved_submissions(run)
    ids = [job.job_id for record in records for job in record.jobs]
    queued = [job.id for job in slurm.queue(ids)] if ids else []
    if queued:
        slurm.cancel(queued)
        print(
            f"this run was moved from {records[-1].root}: cancelled the jobs that work there, "
            f"{', '.join(queued)}"
        )
    return queued
