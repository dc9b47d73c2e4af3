"""Jobs whose script a user wrote (slurm/*.sbatch): they attach themselves to a run.

Two verbs, both called inside the job: `attach-job` once, in the script, and `work` in every task.
What a job submitted by a verb carries in its pickle, such a job gets from its environment.
"""

from __future__ import annotations

import os
import shlex

from hpc.cluster.allocation import Allocation, current_allocation
from hpc.errors import ConfigError
from hpc.job.pipeline import require_upstream
from hpc.job.signatures import require_own_checkpoints
from hpc.state_directory import state_directory
from hpc.store.lease import lease
from hpc.store.run_paths import require_plain_path
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import (
    SubmissionRecord,
    SubmittedJob,
    next_number,
    publish_submission,
    read_submissions,
    submissions_directory,
)
from sarhpc.launch.job import StageWork
from sarhpc.launch.slurm import snapshot_code
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_inputs, require_settings

BY_HAND = "sbatch"
"""Profile named in submissions made by a user's own script."""

SUBMISSION = "SARHPC_SUBMISSION"
"""Environment variable with the number of the submission that a task belongs to."""


def attach_job(run: RunDir, name: str, *, requeue: str, grace_s: float) -> str:
    """Shell lines for the script of this job, which export what its tasks need.

    The job becomes a submission of the run, and the code as it is now becomes its snapshot; a
    requeued job finds both again.

    Args:
        run: the run.
        name: the stage.
        requeue: how the job is requeued, as in a profile.
        grace_s: seconds between its signal and its end.

    Raises:
        ConfigError: not inside a Slurm job, the run has no such stage, or its path has a character
            that no job can import code from.
        IncompleteError: an upstream stage is not sealed.
        VerificationError: the run and its checkpoints came from elsewhere.
    """
    here = current_allocation()
    if here.job_id is None:
        stage_named(load_run_config(run), name)
        raise ConfigError(
            f"`attach-job` must run inside a Slurm script; try `sarhpc {name} {run.quoted}`"
        )
    require_plain_path(run.root)
    config = load_run_config(run)
    require_upstream(run, stage_named(config, name))
    require_inputs(run, config, [name])
    require_settings(config, [name], lambda _: int(os.environ.get("SLURM_NTASKS", "1")))
    if state_directory().is_dir():  # a node may have no home directory
        require_own_checkpoints(run.root, trust=False)
    run.logs(name).mkdir(parents=True, exist_ok=True)
    with lease(submissions_directory(run) / ".lease.json", timeout_s=120.0):
        record = _find_attachment(run, here) or _attach(run, name, here, requeue, grace_s)
    code = shlex.quote(str(run.root / str(record.code)))
    return (
        f'export PYTHONPATH={code}"${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONSAFEPATH=1\n'
        f"export {SUBMISSION}={record.number}\n"
    )


def run_task(run: RunDir, name: str) -> int:
    """Do this task's part of a stage, as a task of a submitted job would; its exit code.

    Raises:
        ConfigError: not inside a Slurm job, or the run has no such stage.
    """
    from hpc.cluster.submit import FAILURE_GRACE_S, RankedWork

    if "SLURM_JOB_ID" not in os.environ:
        stage_named(load_run_config(run), name)
        raise ConfigError(
            f"`work` must run inside a Slurm script; try `sarhpc {name} {run.quoted}`"
        )
    os.environ["SUBMITIT_EXECUTOR"] = "slurm"
    number = os.environ.get(SUBMISSION)
    work = StageWork(str(run.root), name, submission=int(number) if number else None)
    return RankedWork(work, "slurm", FAILURE_GRACE_S)()


def _id(here: Allocation) -> str:
    return here.array_id or str(here.job_id)


def _find_attachment(run: RunDir, here: Allocation) -> SubmissionRecord | None:
    """The submission this job is in already: it was requeued, or another element came first."""
    for record in read_submissions(run):
        if any(job.job_id == _id(here) for job in record.jobs):
            return record
    return None


def _attach(
    run: RunDir, name: str, here: Allocation, requeue: str, grace_s: float
) -> SubmissionRecord:
    pattern = "%j_%t.a%r.log" if here.array_id is None else "%A_%a_%t.a%r.log"
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    job = SubmittedJob(
        stage=name,
        job_id=_id(here),
        elements=None if here.array_id is None else here.array_size,
        dependency=None,
        script="",
        logs=(run.logs(name) / pattern).relative_to(run.root).as_posix(),
        tasks=int(os.environ.get("SLURM_NTASKS", "1")),
        gpus=nodes * int(os.environ.get("SLURM_GPUS_ON_NODE") or 0),
    )
    record = SubmissionRecord(
        number=next_number(run),
        submitted=now(),
        executor="slurm",
        profile=BY_HAND,
        token="",
        jobs=(job,),
        requeue=requeue,
        grace_s=grace_s,
        root=str(run.root),
        code=snapshot_code(run).relative_to(run.root).as_posix(),
    )
    publish_submission(run, record)
    return record
