"""The chain: all remaining stages as Slurm jobs with dependencies.

A job depends on the jobs of the stages it needs by `afterany`, and checks itself whether they are
sealed (docs/adr/0005): however they ended, it neither runs on missing inputs nor waits for ever.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc.cluster import slurm
from hpc.cluster.batch import BatchJob, find_job, script_text, submit_script, write_script
from hpc.cluster.profile import Profile, Resources
from hpc.errors import IncompleteError, RunInUseError
from hpc.store.lease import lease
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import (
    SubmissionRecord,
    SubmittedJob,
    next_number,
    publish_submission,
    submission_lease,
)

WorkOf = Callable[[str, int], Callable[[], int]]
"""Stage and number of the submission -> the picklable work of each of its tasks."""

RepairOf = Callable[[str], tuple[str, ...]]
"""Stage -> arguments of the interpreter, as in `BatchJob.repair`."""


@dataclass(frozen=True)
class Link:
    """One stage to submit."""

    stage: str
    needs: tuple[str, ...]
    """Stages to wait for, without the sealed ones."""
    resources: Resources
    shards: tuple[str, ...] | None = None
    """Shards without a record, if the stage is sharded and planned."""
    expected: int | None = None
    """Expected number of shards, if known before the plan."""
    behind: tuple[str, ...] = ()
    """Ids of earlier jobs of the same stage that still end."""


@dataclass(frozen=True)
class Part:
    """One job of a link, before it is submitted."""

    link: Link
    batch: BatchJob
    first: int = 0
    successor: int = 0


@dataclass(frozen=True)
class Chain:
    """The prepared jobs of one submission."""

    number: int
    token: str
    profile: Profile
    parts: tuple[Part, ...]


def prepare(
    run: RunDir,
    links: Sequence[Link],
    profile: Profile,
    work_of: WorkOf,
    *,
    code: Path | None = None,
    exclude: Sequence[str] = (),
    repair_of: RepairOf | None = None,
) -> Chain:
    """The jobs of the next submission, exactly as `submit` submits them.

    Args:
        run: the run.
        links: stages to submit, in order.
        profile: the cluster.
        work_of: makes the work of a stage.
        code: the code snapshot.
        exclude: nodes to exclude.
        repair_of: makes the command that submits again what a job needs and finds unsealed.
    """
    number = next_number(run)
    token = submission_token(run, number)
    counts = _elements(links, profile)
    parts: list[Part] = []
    for link in links:
        arrays = _arrays(counts.get(link.stage), profile)
        for successor in range(1 + _successors(profile)):
            for first, elements in arrays:
                batch = BatchJob(
                    name=f"{run.name}-{link.stage}",
                    comment=f"sarhpc:{run.name}:{link.stage}:{token}-{len(parts)}",
                    work=work_of(link.stage, number),
                    script=run.root / "submit" / _script_name(number, link.stage, first, successor),
                    logs=run.logs(link.stage),
                    resources=link.resources,
                    profile=profile,
                    code=code,
                    elements=elements,
                    exclude=tuple(exclude),
                    repair=repair_of(link.stage) if repair_of and link.needs else (),
                )
                parts.append(Part(link, batch, first, successor))
    return Chain(number, token, profile, tuple(parts))


def submit(run: RunDir, chain: Chain, waits: Mapping[str, Sequence[str]]) -> SubmissionRecord:
    """Submit the prepared jobs and publish the record of the submission.

    A command that died between its first job and its record left scripts with the same submission
    number: its jobs that are still in the queue become part of this submission. If Slurm refuses a
    job, those before it are published, so that they work.

    Args:
        run: the run.
        chain: from `prepare`.
        waits: stage -> ids of its jobs that are already in the queue.

    Raises:
        RunInUseError: another command is submitting for this run.
        IncompleteError: an operator stopped the run meanwhile; what was submitted is cancelled.
        SlurmRefusedError: Slurm refused a job; the message says which were submitted.
        SlurmUnavailableError: Slurm does not answer; jobs submitted so far are found next time.
    """
    with lease(submission_lease(run)):
        if chain.number != next_number(run):
            raise RunInUseError(
                f"another command has just submitted for {run.root}; check with `sarhpc status`"
            )
        ids: dict[str, list[str]] = {stage: list(jobs) for stage, jobs in waits.items()}
        before: dict[tuple[str, int], str] = {}
        jobs: list[SubmittedJob] = []
        adopted: list[str] = []
        for part in chain.parts:
            _require_not_stopped(run, jobs)
            stage = part.link.stage
            dependency = _dependency(part, ids, before)
            try:
                job_id = _adopt(part.batch)
                if job_id is not None:
                    adopted.append(job_id)
                else:
                    write_script(part.batch)
                    job_id = submit_script(part.batch, dependency)
            except slurm.SlurmRefusedError as error:
                raise _refused(run, chain, jobs, error) from error
            before[stage, part.first] = job_id
            ids.setdefault(stage, []).append(job_id)
            jobs.append(_submitted(run, part, job_id, dependency))
        _require_not_stopped(run, jobs)
        record = replace(_record(run, chain, jobs), adopted=tuple(adopted))
        publish_submission(run, record)
        return record


def _require_not_stopped(run: RunDir, jobs: Sequence[SubmittedJob]) -> None:
    """Cancel `jobs` and raise IncompleteError if an operator has stopped the run."""
    if not run.stop_file.exists():
        return
    slurm.cancel([job.job_id for job in jobs])
    raise IncompleteError(
        f"{run.root} was stopped by an operator during the submission; its {len(jobs)} jobs so far "
        f"are cancelled. Continue with `sarhpc resume {run.quoted}`"
    )


def _refused(
    run: RunDir, chain: Chain, jobs: Sequence[SubmittedJob], error: slurm.SlurmRefusedError
) -> slurm.SlurmRefusedError:
    """The error of a submission that Slurm refused in part; the accepted part is published."""
    if not jobs:
        return error
    done = {job.stage for job in jobs}
    refused = dict.fromkeys(p.link.stage for p in chain.parts if p.link.stage not in done)
    publish_submission(run, replace(_record(run, chain, jobs), refused=tuple(refused)))
    named = ", ".join(f"{job.stage} {job.job_id}" for job in jobs)
    return slurm.SlurmRefusedError(
        f"{error}; {len(jobs)} of {len(chain.parts)} jobs were submitted and stay ({named}). "
        f"Once the cause is gone, `sarhpc resume {run.quoted}` submits the others"
    )


def _record(run: RunDir, chain: Chain, jobs: Sequence[SubmittedJob]) -> SubmissionRecord:
    code = chain.parts[0].batch.code
    return SubmissionRecord(
        number=chain.number,
        submitted=now(),
        executor="slurm",
        profile=chain.profile.name,
        token=chain.token,
        jobs=tuple(jobs),
        requeue=chain.profile.requeue,
        profile_file=chain.profile.file,
        grace_s=chain.profile.grace_s,
        root=str(run.root),
        code=None if code is None else code.relative_to(run.root).as_posix(),
        shards={
            part.link.stage: part.link.shards
            for part in chain.parts
            if part.batch.elements is not None and part.link.shards is not None
        },
    )


def submission_token(run: RunDir, number: int) -> str:
    """Eight hex digits, the same for every attempt at submission `number` of this run."""
    text = f"{run.root} {run.info['created']} {number}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _script_name(number: int, stage: str, first: int, successor: int) -> str:
    more = (f"-from-{first}" if first else "") + (f"-successor-{successor}" if successor else "")
    return f"{number:03d}-{stage}{more}.sbatch"


def _elements(links: Sequence[Link], profile: Profile) -> dict[str, int]:
    """Stage -> array elements, for the stages that become arrays."""
    wanted = {
        link.stage: min(link.resources.elements, _shards(link))
        for link in links
        if link.resources.elements > 1 and _shards(link) > 1
    }
    limit = profile.max_jobs
    if wanted and limit is not None:
        # Every element counts as a job in the queue; fewer elements make more shards each.
        free = max(limit // (1 + _successors(profile)) - (len(links) - len(wanted)), len(wanted))
        share = min(1.0, free / sum(wanted.values()))
        wanted = {stage: max(1, math.floor(count * share)) for stage, count in wanted.items()}
    return wanted


def _successors(profile: Profile) -> int:
    return profile.successors if profile.requeue == "chain" else 0


def _shards(link: Link) -> int:
    """Number of shards to divide; the number of requested elements if unknown."""
    known = len(link.shards) if link.shards is not None else link.expected
    return link.resources.elements if known is None else known


def _arrays(elements: int | None, profile: Profile) -> list[tuple[int, int | None]]:
    """First element and number of elements of each array; for None, one job without an array."""
    if elements is None:
        return [(0, None)]
    most = profile.max_array
    return [(first, min(most, elements - first)) for first in range(0, elements, most)]


def _dependency(
    part: Part, ids: Mapping[str, Sequence[str]], before: Mapping[tuple[str, int], str]
) -> str | None:
    if part.successor:
        return f"afterany:{before[part.link.stage, part.first]}"
    upstream = [job for need in part.link.needs for job in ids.get(need, ())]
    upstream += part.link.behind
    return f"afterany:{':'.join(upstream)}" if upstream else None


def _adopt(batch: BatchJob) -> str | None:
    """Id of the job if a command that died had submitted it; one that differs is cancelled."""
    if not batch.script.exists() or (submitted := find_job(batch)) is None:
        return None
    if batch.script.read_text() == script_text(batch):
        return submitted
    slurm.cancel([submitted])
    return None


def _submitted(run: RunDir, part: Part, job_id: str, dependency: str | None) -> SubmittedJob:
    batch = part.batch
    return SubmittedJob(
        stage=part.link.stage,
        job_id=job_id,
        elements=batch.elements,
        dependency=dependency,
        script=batch.script.relative_to(run.root).as_posix(),
        logs=(batch.logs / batch.log_pattern).relative_to(run.root).as_posix(),
        tasks=batch.resources.tasks,
        gpus=batch.resources.gpus,
        first=part.first,
        successor=part.successor,
        time_min=batch.resources.time_min,
    )
