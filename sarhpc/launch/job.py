"""The entry point of a job: run one stage as far as possible."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from hpc.cluster.allocation import Allocation, current_allocation
from hpc.cluster.gpu_driver import gpus_of_job, require_fitting_torch, torch_sees_gpus
from hpc.cluster.health import BadNodeError, Needs, require_fit_node
from hpc.collector import relax_gc
from hpc.errors import HpcError, exit_code_of
from hpc.job.agreement import SingleProcess
from hpc.job.attempt import RecordedAttempt, recorded_attempt
from hpc.job.elements import follow_element, run_element
from hpc.job.lost_shards import Siblings
from hpc.job.pipeline import JobContext, interrupted, run_stage
from hpc.job.requeue import (
    RequeuePolicy,
    requeue_before_deadline,
    requeue_reason,
    stopped_for_good,
    time_limit_reason,
)
from hpc.job.staging import existing_folder
from hpc.job.stop import StopNow, StopRequest
from hpc.memory import keep_freed_memory, use_expandable_segments
from hpc.signals import stop_signals_ignored
from hpc.store.lease import STALE_S
from hpc.store.ownership import private_umask, require_own_run
from hpc.store.plan import Plan
from hpc.store.rundir import RunDir, open_run
from hpc.store.submissions import SubmissionRecord, await_submission, element_number, stripe

log = logging.getLogger("sarhpc")


@dataclass(frozen=True)
class StageWork:
    """Picklable work of one job. Carries names only: progress is on disk, never in the pickle."""

    root: str
    stage: str
    force: bool = False
    submission: int | None = None
    """Submission this job belongs to, see hpc.store.submissions; None on this machine."""

    def __call__(self) -> int:
        """Exit code of the stage (see hpc.errors)."""
        return work(self.root, self.stage, force=self.force, submission=self.submission)


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


def work(root: str, stage: str, *, force: bool = False, submission: int | None = None) -> int:
    """Run `stage` of the run at `root` in this process and return its exit code.

    On a stop request it saves and ends. A cluster job is then requeued if its submission allows it,
    as after a transient failure.
    """
    here = current_allocation()
    configure_logging(here.rank)
    keep_freed_memory()
    use_expandable_segments()
    relax_gc()
    try:
        run = open_run(Path(root))
        require_own_run(run, thorough=False)
        private_umask(run)
        job = _job_of(run, stage, here, submission)
    except Exception as error:
        # How the job is requeued is unknown; its script, which knows, requeues it.
        return report(stage, error)
    # `--force` excuses the attempts before this job, not its own restarts.
    force = force and here.restart == 0
    try:
        with _attempt(run, stage, job, force) as attempt:
            log.info("%s", _run_stage(run, stage, job, attempt, force))
        return 0
    except StopNow as stop:
        return _end_job(run, stage, job, interrupted(stage, stop))
    except Exception as error:
        # Once one rank has failed, srun ends the others by SIGTERM: the request comes first.
        with stop_signals_ignored():
            return _end_job(run, stage, job, error)


@dataclass(frozen=True)
class _Job:
    """The job this process belongs to."""

    here: Allocation
    record: SubmissionRecord | None
    element: int | None
    requeue_policy: RequeuePolicy

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

    def siblings(self, stage: str) -> Siblings | None:
        """The elements of its submission; None outside one."""
        if self.record is None:
            return None
        return Siblings(
            functools.partial(_owners, self.record, stage),
            functools.partial(_queued_elements, self.record, stage),
        )


def _owners(record: SubmissionRecord, stage: str, plan: Plan) -> dict[str, int]:
    """Shard -> array element of `stage` that the submission assigned it to."""
    # As `stripe` divides them: every n-th, from the element's own number.
    divided = record.shards.get(stage, tuple(shard.id for shard in plan.shards))
    count = record.elements(stage)
    return {shard: position % count for position, shard in enumerate(divided)}


def _queued_elements(record: SubmissionRecord, stage: str) -> dict[int, str]:
    """Array element of `stage` -> its state, of those in the queue."""
    from hpc.cluster import slurm

    rows = slurm.queue([job.job_id for job in record.of(stage)], elements=True)
    return {
        element_number(record, row.job_id, int(row.id.partition("_")[2])): row.state
        for row in rows
        if row.id.partition("_")[2].isdigit() and not _is_held_by_slurm(row.reason)
    }


def _is_held_by_slurm(reason: str) -> bool:
    """Whether a job waits for a person, because Slurm could not start it."""
    return "requeue" in reason.lower() and "held" in reason.lower()


def _attempt(
    run: RunDir, stage: str, job: _Job, force: bool
) -> contextlib.AbstractContextManager[RecordedAttempt | None]:
    """The attempt of this start, recorded by rank 0; none at a stage that is sealed."""
    if job.here.rank > 0 or run.ledger(stage).sealed:
        return contextlib.nullcontext()
    return recorded_attempt(run.stage(stage), job.element, force=force)


def _job_of(run: RunDir, stage: str, here: Allocation, submission: int | None) -> _Job:
    record = None if submission is None else await_submission(run, submission)
    mode = "none" if record is None else record.requeue
    element = here.array_index
    if record is not None and here.array_id is not None and element is not None:
        element = element_number(record, here.array_id, element)
    return _Job(here, record, element, RequeuePolicy(mode, here.job_id))


def _run_stage(
    run: RunDir, name: str, job: _Job, attempt: RecordedAttempt | None, force: bool
) -> str:
    from sarhpc.launch.upstream import seal_upstream
    from sarhpc.stages.registry import spec_named, stage_named
    from sarhpc.stages.run_config import load_run_config

    cfg = load_run_config(run)
    stage = stage_named(cfg, name)
    spec = spec_named(name)
    sees_gpus = _sees_its_gpus(spec.uses_gpus(cfg))
    _require_fit_node(run, job, spec.node_local(cfg), compute=not sees_gpus)
    left = _time_left_s(job)
    ends = None if left is None else time.time() + left
    grace_s = job.grace_s if left is None else min(job.grace_s, left / 2)
    stop = StopRequest(
        SingleProcess(),
        stop_file=run.stop_file,
        deadline=None if ends is None else ends - grace_s,
        poll_s=0.0,
        # Ranks of a collective stage exit together, so none of them exits at once.
        urgent=job.here.rank == 0 and not stage.collective,
    )
    context = JobContext(
        stop,
        grace_s,
        lease_timeout_s=1.25 * STALE_S if job.here.job_id else 0.0,
        force=force,
        attempt=attempt,
    )
    too_late = None if ends is None else ends - min(grace_s / 4, 30.0)

    def _abort_reason() -> str | None:
        return None if context.force else stopped_for_good(run.stage(name), job.element)

    with requeue_before_deadline(job.requeue_policy, too_late, _abort_reason), stop:
        seal_upstream(run, cfg, stage, job.here.rank)
        if job.element is not None:
            part, siblings = functools.partial(job.part, name), job.siblings(name)
            if job.here.rank > 0:
                return follow_element(run, stage, job.element, part, job.here.rank, context)
            return run_element(run, stage, job.element, part, context, siblings)
        return run_stage(run, stage, job.here.rank, context=context)


def _sees_its_gpus(is_gpu_stage: bool) -> bool:
    """Whether torch sees GPUs where the job has some for its stage; True where it has none.

    Raises:
        TorchBuildError: it sees none because it is not built for the driver.
    """
    gpus = gpus_of_job() if is_gpu_stage else 0
    if not gpus or torch_sees_gpus():
        return True
    require_fitting_torch(gpus)
    return False


def _require_fit_node(run: RunDir, job: _Job, node_local: str | None, *, compute: bool) -> None:
    """Raise BadNodeError unless this node is fit for the job; one rank of each node checks it.

    Args:
        run: the run.
        job: this job.
        node_local: folder of the node that the work copies to, `$VARIABLES` in it; None for none.
        compute: whether an array element too tests a product on each GPU.

    Raises:
        BadNodeError: it is not, and is put on the list of bad nodes.
        TooManyBadNodesError: hardly any node is fit.
    """
    if job.record is None or job.here.job_id is None or job.here.local_rank > 0:
        return
    from hpc.cluster.bad_nodes import BadNodeList

    cluster = os.environ.get("SLURM_CLUSTER_NAME")
    # Shards that do not fit are read in place, so little space is enough.
    scratch = existing_folder(node_local)
    needs = Needs(
        run=run.root,
        scratch=scratch,
        scratch_bytes=2**20,
        scratch_inodes=16,
        cpus=job.here.cpus or 0,
        gpus=int(os.environ.get("SLURM_GPUS_ON_NODE") or 0),
        # Thousands of elements do not each import torch once more.
        compute=compute or job.element is None,
    )
    require_fit_node(needs, BadNodeList(cluster) if cluster else None)


def _time_left_s(job: _Job) -> float | None:
    """Seconds until the job reaches its time limit; None if that is unknown."""
    if job.record is None or job.here.job_id is None or job.here.rank > 0:
        return None
    if job.element is not None:
        return _time_left_of_element(job.record, job.here)
    from hpc.cluster import slurm

    try:
        return slurm.time_left_s(job.here.job_id)
    except HpcError as error:
        log.warning("the time limit of this job is unknown, relying on its signal: %s", error)
        return None


def _time_left_of_element(record: SubmissionRecord, here: Allocation) -> float | None:
    """By the end time in the environment (Slurm 23.02 and later), or the requested limit.

    The controller is not queried: thousands of elements at once would overload it.
    """
    import psutil

    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if end.isdigit():
        return float(end) - time.time()
    limits = [job.time_min for job in record.jobs if job.job_id == here.array_id]
    if not limits or limits[0] is None:
        return None
    started = float(psutil.Process().create_time())
    return started + 60 * limits[0] - time.time()


def _end_job(run: RunDir, stage: str, job: _Job, error: Exception) -> int:
    """Log how the work ended, requeue the job if that makes sense, and return the exit code."""
    code = report(stage, error)
    # Rank 0 requeues for all; only a bad node is reported by the rank that found it.
    if job.here.rank > 0 and not isinstance(error, BadNodeError):
        return code
    why = requeue_reason(error, run.stage(stage), job.element) or time_limit_reason(
        error, job.requeue_policy
    )
    if why is None or job.here.job_id is None:
        return code
    try:
        job.requeue_policy.request(why)
    except HpcError as refused:
        return report(stage, refused)
    return 0 if job.requeue_policy.can_requeue else code


def report(what: str, error: Exception) -> int:
    """Log how the work on a stage ended, and return its exit code."""
    if isinstance(error, HpcError):
        level = logging.INFO if error.exit_code == 0 else logging.ERROR
        log.log(level, "stage=%s %s: %s", what, type(error).__name__, error)
    else:
        trace = "".join(traceback.format_exception(error))
        log.error("stage=%s failed unexpectedly\n%s", what, trace)
    return exit_code_of(error)
