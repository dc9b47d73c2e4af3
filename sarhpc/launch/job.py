"""The entry point of a job: bring one stage, or the whole line, as far as it goes."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from hpc.cluster.allocation import Allocation, current_allocation
from hpc.cluster.health import BadNodeError, Needs, require_fit_node
from hpc.collector import relax_gc
from hpc.errors import HpcError, exit_code_of
from hpc.job.agreement import SingleProcess
from hpc.job.elements import run_element
from hpc.job.pipeline import Conditions, interrupted, run_stage
from hpc.job.requeue import Comeback, comes_back, last_resort, out_of_time
from hpc.job.staging import first_folder
from hpc.job.stop import StopNow, StopRequest
from hpc.memory import keep_freed_memory
from hpc.store.attempts import crash_loop
from hpc.store.lease import STALE_S
from hpc.store.plan import Plan
from hpc.store.rundir import RunDir, open_run
from hpc.store.submissions import SubmissionRecord, await_submission, element_number, stripe

log = logging.getLogger("sarhpc")

LINE = "line:"
"""Begins the name of a line of stages, `line:FIRST:LAST`."""


@dataclass(frozen=True)
class StageWork:
    """Picklable work of one job. Carries names only: progress is on disk, never in the pickle."""

    root: str
    stage: str
    force: bool = False
    executor: str | None = None
    """For a line: how its stages reach a machine; None as configured."""
    submission: int | None = None
    """Submission this job belongs to, see hpc.store.submissions; None on this machine."""

    def __call__(self) -> int:
        """Exit code of the stage (see hpc.errors)."""
        return work(
            self.root,
            self.stage,
            force=self.force,
            executor=self.executor,
            submission=self.submission,
        )


def configure_logging(rank: int = 0) -> None:
    """Log one event a line to standard error, `key=value`, INFO for rank 0, WARNING for others."""
    # distributed sets its own levels while it is imported, from this variable.
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if rank == 0 else logging.WARNING,
        format=f"%(asctime)s %(levelname)s r{rank} %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    for noisy in ("distributed", "rasterio", "matplotlib", "DeepSpeed", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def work(
    root: str,
    stage: str,
    *,
    force: bool = False,
    executor: str | None = None,
    submission: int | None = None,
) -> int:
    """Run `stage` of the run at `root` in this process and return its exit code.

    Asked to stop, it saves and ends; a job of a cluster then queues itself again if its submission
    says so, and after a failure that may pass.
    """
    here = current_allocation()
    configure_logging(here.rank)
    keep_freed_memory()
    relax_gc()
    try:
        run = open_run(Path(root))
        if stage.startswith(LINE):
            return _drive(run, stage, executor, force)
        job = _job_of(run, stage, here, submission)
    except HpcError as error:
        return _tell(stage, error)
    try:
        log.info("%s", _bring_forward(run, stage, job, force))
        return 0
    except StopNow as stop:
        return _leave(run, stage, job, interrupted(stage, stop))
    except Exception as error:
        return _leave(run, stage, job, error)


@dataclass(frozen=True)
class _Job:
    """The job this process belongs to."""

    here: Allocation
    record: SubmissionRecord | None
    element: int | None
    comeback: Comeback

    @property
    def grace_s(self) -> float:
        return self.record.grace_s if self.record is not None else 120.0

    def part(self, stage: str, plan: Plan) -> list[str]:
        """Shards of this array element."""
        assert self.element is not None
        planned = [shard.id for shard in plan.shards]
        if self.record is None:
            return planned[self.element :: self.here.array_size]
        return stripe(self.record, stage, self.element, planned)


def _job_of(run: RunDir, stage: str, here: Allocation, submission: int | None) -> _Job:
    record = None if submission is None else await_submission(run, submission)
    mode = "none" if record is None else record.requeue
    element = here.array_index
    if record is not None and here.array_id is not None and element is not None:
        element = element_number(record, here.array_id, element)
    return _Job(here, record, element, Comeback(mode, here.job_id))


def _bring_forward(run: RunDir, name: str, job: _Job, force: bool) -> str:
    from sarhpc.stages.registry import stage_named
    from sarhpc.stages.run_config import load_run_config

    cfg = load_run_config(run)
    stage = stage_named(cfg, name)
    _require_fit_node(run, job, cfg.cluster.node_local if name == "train" else None)
    left = _time_left_s(job)
    ends = None if left is None else time.time() + left
    grace_s = job.grace_s if left is None else min(job.grace_s, left / 2)
    stop = StopRequest(
        SingleProcess(),
        stop_file=run.stop_file,
        deadline=None if ends is None else ends - grace_s,
        look_every_s=0.0,
        # Ranks that work together leave together, so one of them never leaves at once.
        urgent=job.here.rank == 0 and not stage.collective,
    )
    conditions = Conditions(
        stop,
        grace_s,
        patience_s=1.25 * STALE_S if job.here.job_id else 0.0,
        # What the operator said about the past does not excuse what this job does from now on.
        force=force and job.here.restart == 0,
    )
    too_late = None if ends is None else ends - min(grace_s / 4, 30.0)

    def _hopeless() -> str | None:
        return None if conditions.force else crash_loop(run.stage(name), job.element)

    with last_resort(job.comeback, too_late, _hopeless), stop:
        if job.element is not None:
            return run_element(
                run, stage, job.element, lambda plan: job.part(name, plan), conditions
            )
        return run_stage(run, stage, job.here.rank, conditions=conditions)


def _require_fit_node(run: RunDir, job: _Job, node_local: str | None) -> None:
    """Return if this node of the cluster is fit for the job; one rank of each node looks.

    Args:
        run: the run.
        job: this job.
        node_local: folder of the node that the work copies to, `$VARIABLES` in it; None for none.

    Raises:
        BadNodeError: it is not, and is listed as such; the job does better elsewhere.
        TooManyBadNodesError: hardly any node is.
    """
    if job.record is None or job.here.job_id is None or job.here.local_rank > 0:
        return
    from hpc.cluster.bad_nodes import BadNodeList

    cluster = os.environ.get("SLURM_CLUSTER_NAME")
    # What does not fit is read where it lies: a fit node needs room for a little only.
    scratch = first_folder(node_local)
    needs = Needs(
        run=run.root,
        scratch=scratch,
        scratch_bytes=2**20,
        scratch_inodes=16,
        cpus=job.here.cpus or 0,
        gpus=int(os.environ.get("SLURM_GPUS_ON_NODE") or 0),
        # Thousands of elements do not import torch one more time each.
        compute=job.element is None,
    )
    require_fit_node(needs, BadNodeList(cluster) if cluster else None)


def _time_left_s(job: _Job) -> float | None:
    """Seconds until the job reaches its time limit; None while nothing can tell."""
    if job.record is None or job.here.job_id is None or job.here.rank > 0:
        return None
    if job.element is not None:
        return _time_left_of_element(job.record, job.here)
    from hpc.cluster import slurm

    try:
        return slurm.time_left_s(job.here.job_id)
    except HpcError as error:
        log.warning("the end of this job is unknown, its signal must do: %s", error)
        return None


def _time_left_of_element(record: SubmissionRecord, here: Allocation) -> float | None:
    """What Slurm 23.02 and later put into the environment, or the limit that was asked for.

    The controller is not asked: thousands of elements that do so at once would hurt everyone.
    """
    import psutil

    told = os.environ.get("SLURM_JOB_END_TIME", "")
    if told.isdigit():
        return float(told) - time.time()
    limits = [job.time_min for job in record.jobs if job.job_id == here.array_id]
    if not limits or limits[0] is None:
        return None
    began = float(psutil.Process().create_time())
    return began + 60 * limits[0] - time.time()


def _leave(run: RunDir, stage: str, job: _Job, error: Exception) -> int:
    """Say how the work ended, queue the job again if that makes sense; the exit code."""
    code = _tell(stage, error)
    # Rank 0 speaks for all, but of a bad node the others may know better.
    if job.here.rank > 0 and not isinstance(error, BadNodeError):
        return code
    why = comes_back(error, run.stage(stage), job.element) or out_of_time(error, job.comeback)
    if why is None or job.here.job_id is None:
        return code
    try:
        job.comeback.ask(why)
    except HpcError as refused:
        return _tell(stage, refused)
    return 0 if job.comeback.possible else code


def _tell(stage: str, error: Exception) -> int:
    """Log how the work ended; its exit code."""
    if isinstance(error, HpcError):
        level = logging.INFO if error.exit_code == 0 else logging.ERROR
        log.log(level, "stage=%s %s: %s", stage, type(error).__name__, error)
    else:
        told = "".join(traceback.format_exception(error))
        log.error("stage=%s broke\n%s", stage, told)
    return exit_code_of(error)


def _drive(run: RunDir, stage: str, executor: str | None, force: bool) -> int:
    from sarhpc.launch.local import drive_line
    from sarhpc.stages.run_config import load_run_config

    return drive_line(run, stage, executor or load_run_config(run).cluster.executor, force=force)
