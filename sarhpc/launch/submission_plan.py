"""What a submission adds to the queue: which stages become jobs, and what waits for what."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, IncompleteError
from hpc.job.pipeline import Stage
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import STAGES, spec_named
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from hpc.cluster.chain import Link
    from hpc.cluster.profile import Profile
    from hpc.cluster.slurm import QueuedJob

_NEVER_STARTS = (
    "DependencyNeverSatisfied",
    "launch failed requeued held",
    "launch_failed_requeued_held",
    "JobHoldMaxRequeue",
)
"""Reasons of a waiting job that nobody but Slurm gave and that never pass."""


@dataclass(frozen=True)
class SubmissionPlan:
    """What to submit, to leave alone and to cancel."""

    links: tuple[Link, ...]
    """Stages to submit, in order."""
    queued: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Stage -> ids of its jobs that are in the queue already."""
    blocked: tuple[str, ...] = ()
    """Jobs in the queue whose dependency is never satisfied, or is resubmitted."""


def plan_submission(
    run: RunDir,
    stages: Sequence[Stage],
    profile: Profile,
    queued: Mapping[str, Sequence[QueuedJob]],
    ending: Collection[str] = (),
) -> SubmissionPlan:
    """What to submit, what to leave alone and what to cancel.

    The queue must have been read before the ledgers: a job that had left it by then has written
    all its records. A job that received a stop, or completes, is no standing job: its stage is
    submitted again behind it, and so is everything that waits for it.

    Args:
        run: the run.
        stages: those to submit, in order.
        profile: the cluster.
        queued: stage -> its jobs in the queue.
        ending: ids of jobs and array elements that end soon, whatever the queue shows.

    Raises:
        IncompleteError: a stage needs another one that is neither sealed nor in the queue.
    """
    config = load_run_config(run)
    links: list[Link] = []
    waiting: dict[str, tuple[str, ...]] = {}
    blocked: list[str] = []
    for stage in stages:
        if run.ledger(stage.name).sealed:
            continue
        jobs = list(queued.get(stage.name, ()))
        standing = standing_jobs(jobs, ending)
        renewed = {link.stage for link in links}
        if standing and not renewed & set(stage.needs):
            waiting[stage.name] = standing
            continue
        useless = [
            job
            for job in jobs
            if not _is_ending(job, ending) and (renewed & set(stage.needs) or is_blocked(job))
        ]
        blocked += [job.id for job in useless]
        behind = tuple(dict.fromkeys(job.job_id for job in jobs if job not in useless))
        for need in stage.needs:
            if need in renewed or need in waiting or run.ledger(need).sealed:
                continue
            coming = standing_jobs(queued.get(need, ()), ending)
            if not coming:
                raise IncompleteError(
                    f"{stage.name} needs {need}, which is neither sealed nor in the queue; "
                    f"run `sarhpc resume {run.quoted}` for all unsealed stages"
                )
            waiting[need] = coming
        link = link_of(run, config, stage, profile)
        links.append(dataclasses.replace(link, behind=behind))
    return SubmissionPlan(tuple(links), waiting, tuple(blocked))


def standing_jobs(jobs: Sequence[QueuedJob], ending: Collection[str]) -> tuple[str, ...]:
    """Ids of the jobs that can do their stage: none of their elements is blocked or ending."""
    lost = {job.job_id for job in jobs if is_blocked(job) or _is_ending(job, ending)}
    return tuple(dict.fromkeys(job.job_id for job in jobs if job.job_id not in lost))


def is_blocked(job: QueuedJob) -> bool:
    """Whether Slurm will never start the job, however long one waits."""
    return any(reason in job.reason for reason in _NEVER_STARTS)


def _is_ending(job: QueuedJob, ending: Collection[str]) -> bool:
    # One that waits was requeued since, and will start again.
    ends = bool({job.id, job.job_id} & set(ending))
    return job.state == "COMPLETING" or (ends and job.state != "PENDING")


def link_of(run: RunDir, config: RunConfig, stage: Stage, profile: Profile) -> Link:
    """One stage as a link of the chain, with the shards that have no record."""
    from hpc.cluster.chain import Link

    resources = profile.resources_of(stage.name)
    spec = spec_named(stage.name)
    if resources.elements > 1 and not spec.sharded:
        sharded = ", ".join(spec.name for spec in STAGES if spec.sharded)
        raise ConfigError(
            f"profile {profile.name}: stages.{stage.name}.elements={resources.elements}, but only "
            f"{sharded} can be job arrays"
        )
    shards = None
    if resources.elements > 1 and run.plan_file(stage.name).exists():
        missing = run.ledger(stage.name).missing(read_plan(run.plan_file(stage.name)))
        shards = tuple(task.id for task in missing)
    needs = tuple(need for need in stage.needs if not run.ledger(need).sealed)
    return Link(stage.name, needs, resources, shards, spec.shards(config))
