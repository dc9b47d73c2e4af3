"""Submitting to Slurm: which stages become jobs, what waits for what, what is there already."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import HpcError, RunInUseError
from hpc.job.pipeline import Stage
from hpc.store.run_paths import require_plain_path
from hpc.store.rundir import RunDir
from hpc.store.submissions import (
    SubmissionRecord,
    job_ids,
    lifted_stop,
    next_number,
    read_submissions,
    record_stopped_jobs,
    stopped_jobs,
    submitting_command,
)
from sarhpc.launch.job import StageWork
from sarhpc.launch.started import Note, no_note, note_submission
from sarhpc.launch.submission_plan import SubmissionPlan, plan_submission
from sarhpc.stages.inputs.paths import EMBEDDED
from sarhpc.stages.registry import used_models
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from hpc.cluster.chain import Chain, Link
    from hpc.cluster.profile import Profile
    from hpc.cluster.slurm import QueuedJob

log = logging.getLogger(__name__)

CODE = ("hpc", "sarhpc", "pyproject.toml")
"""What the code snapshot of a run holds."""


CONTESTED_S = 60.0
"""Seconds to wait for another command that submits for the same run."""


def submit_stages(
    run: RunDir,
    stages: Sequence[Stage],
    profile: Profile,
    *,
    force: bool = False,
    note: Note = no_note,
) -> SubmissionRecord | None:
    """Submit the unsealed of `stages` and print where to look; None if all are in the queue.

    Stages with a job in the queue are left alone, unless that job received a stop, or a stage they
    need has to be submitted again: then their jobs are cancelled and submitted behind it.

    Args:
        run: the run.
        stages: in order.
        profile: the cluster.
        force: start despite a crash loop.
        note: receives each job.

    Raises:
        IncompleteError: a stage needs another one that is neither sealed nor in the queue.
        ConfigError: the profile asks for an array of a stage that is not sharded.
        RunInUseError: another command is submitting for this run, and takes longer than a minute.
        SlurmUnavailableError: Slurm does not answer; the same command continues the submission.
    """
    begin = next_number(run)
    try:
        plan, record = _submit_uncontested(run, stages, profile, force)
    except HpcError:
        for made in read_submissions(run):
            if made.number >= begin:  # Slurm refused the rest
                note_submission(note, run, made, {})
        raise
    note_submission(note, run, record, plan.queued)
    if record is None:
        for stage, jobs in plan.queued.items():
            print(f"{stage}: in the queue as job {', '.join(jobs)}")
        print(f"nothing to submit; see its progress with: sarhpc status {run.quoted}")
        return None
    if plan.blocked:
        print(f"cancelled because their dependency is resubmitted: {', '.join(plan.blocked)}")
    _print_submission(run, record)
    _print_ended(run, record)
    return record


def _submit_uncontested(
    run: RunDir, stages: Sequence[Stage], profile: Profile, force: bool
) -> tuple[SubmissionPlan, SubmissionRecord | None]:
    """As `submit_missing`, after another command that submits: it may leave nothing to do."""
    until = time.monotonic() + CONTESTED_S
    while True:
        try:
            return submit_missing(run, stages, profile, force=force)
        except RunInUseError:
            if time.monotonic() >= until:
                raise
            time.sleep(1.0)


def submit_missing(
    run: RunDir,
    stages: Sequence[Stage],
    profile: Profile,
    *,
    force: bool = False,
    ending: Collection[str] = (),
) -> tuple[SubmissionPlan, SubmissionRecord | None]:
    """What was found in the queue and submitted, as `submit_stages` does; None for nothing.

    Args:
        run: the run.
        stages: in order.
        profile: the cluster.
        force: start despite a crash loop.
        ending: ids of jobs and array elements that end soon, besides those that received a stop.

    Raises:
        RunInUseError: another command is submitting for this run.
    """
    if (other := submitting_command(run)) is not None:
        raise RunInUseError(
            f"{other} is submitting for {run.root}; see `sarhpc status {run.quoted}`"
        )
    number = next_number(run)
    record_ending_jobs(run)
    ended = {*ending, *stopped_jobs(run)}
    plan = plan_submission(run, stages, profile, queued_jobs(run), ended)
    if not plan.links:
        return plan, None
    chain = prepare_chain(run, plan.links, profile, force=force)
    if chain.number != number:
        # The jobs of that submission were not in the queue that was read above.
        raise RunInUseError(f"another command has just submitted for {run.root}")
    return plan, _replace_blocked(run, chain, plan)


def _replace_blocked(run: RunDir, chain: Chain, plan: SubmissionPlan) -> SubmissionRecord:
    """Submit the chain, then cancel the jobs that it replaces.

    A submission that fails must not leave the queue empty. Where Slurm refuses it because of the
    jobs that the user has in the queue, the useless ones make room first.
    """
    from hpc.cluster import slurm
    from hpc.cluster.chain import submit

    blocked = list(plan.blocked)
    try:
        record = submit(run, chain, plan.queued)
    except slurm.SlurmRefusedError as error:
        if not blocked or next_number(run) != chain.number or "limit" not in str(error).lower():
            raise
        slurm.cancel(blocked)
        return submit(run, chain, plan.queued)
    try:
        slurm.cancel(blocked)
    except HpcError as error:
        # Whichever of two jobs of a stage starts first does it, the other one finds it sealed.
        log.warning("jobs %s are replaced and were not cancelled: %s", ", ".join(blocked), error)
    return record


def _print_ended(run: RunDir, record: SubmissionRecord) -> None:
    """Print which of the jobs just submitted have ended without sealing their stage, or are lost.

    A controller that answers slowly, or restarts meanwhile, may have run or lost some already.
    """
    from hpc.cluster import slurm

    try:
        known = {
            job.job_id: job for job in slurm.queue([job.job_id for job in record.jobs], ended=True)
        }
    except HpcError:
        return
    for job in record.jobs:
        found = known.get(job.job_id)
        if found is not None and not found.ended:
            continue
        if not run.ledger(job.stage).sealed:
            state = "unknown to Slurm" if found is None else f"has ended already: {found.state}"
            print(f"  ! {job.stage} job {job.job_id} {state}; see `sarhpc status {run.quoted}`, "
                  f"then `sarhpc resume {run.quoted}`", flush=True)  # fmt: skip


def print_scripts(run: RunDir, stages: Sequence[Stage], profile: Profile, *, force: bool) -> None:
    """Print, byte for byte, the scripts that `submit_stages` would submit now.

    The name of each and what it waits for go to standard error.
    """
    from hpc.cluster.batch import script_text

    plan = plan_submission(run, stages, profile, queued_jobs(run), stopped_jobs(run))
    if not plan.links:
        print("nothing to submit: every stage is in the queue", file=sys.stderr)
        return
    for part in prepare_chain(run, plan.links, profile, force=force, write=False).parts:
        needs = [need for need in part.link.needs if not run.ledger(need).sealed]
        after = f" after {', '.join(needs)}" if needs else ""
        after = f" after {part.link.stage}" if part.successor else after
        print(f"==> {part.batch.script}{after}", file=sys.stderr, flush=True)
        print(script_text(part.batch), end="", flush=True)


def queued_jobs(run: RunDir) -> dict[str, list[QueuedJob]]:
    """Stage -> its jobs in the queue; one call of squeue, none if nothing was ever submitted."""
    from hpc.cluster import slurm

    known = job_ids(run)
    found: dict[str, list[QueuedJob]] = {}
    if known:
        for job in slurm.queue(list(known)):
            found.setdefault(known[job.job_id].stage, []).append(job)
    return found


def record_ending_jobs(run: RunDir) -> None:
    """Record the jobs that may have seen a stop which was removed since.

    Raises:
        SlurmUnavailableError: Slurm does not answer; the next command does it.
    """
    from hpc.cluster import slurm

    if not lifted_stop(run).exists():
        return
    try:
        jobs = [job for found in queued_jobs(run).values() for job in found]
    except slurm.SlurmMissingError:
        jobs = []  # no command here can submit to that cluster either
    record_stopped_jobs(run, [job.id for job in jobs if job.state != "PENDING"])
    lifted_stop(run).unlink(missing_ok=True)


def prepare_chain(
    run: RunDir, links: Sequence[Link], profile: Profile, *, force: bool, write: bool = True
) -> Chain:
    """The jobs of the next submission, which import from a snapshot of the code as it is now.

    Without `write` the snapshot is named and not made.
    """
    from hpc.cluster.chain import prepare

    require_plain_path(run.root)

    def work_of(stage: str, number: int) -> StageWork:
        return StageWork(str(run.root), stage, force, number)

    def repair_of(stage: str) -> tuple[str, ...]:
        return ("-m", "sarhpc.cli", "supervise", str(run.root), "--in-job", stage)

    if any(link.resources.elements > 1 for link in links):
        profile = _within_limits(profile)
    exclude = _bad_nodes(max(link.resources.nodes for link in links))
    code = snapshot_code(run, write=write)
    return prepare(run, links, profile, work_of, code=code, exclude=exclude, repair_of=repair_of)


def _bad_nodes(keep: int) -> Sequence[str]:
    """Bad nodes to exclude, as long as `keep` others are left."""
    from hpc.cluster import slurm
    from hpc.cluster.bad_nodes import nodes_to_exclude

    return nodes_to_exclude(keep=keep) if slurm.is_available() else ()


def _within_limits(profile: Profile) -> Profile:
    """The profile with no more array elements than Slurm itself accepts."""
    from hpc.cluster import slurm

    if not slurm.is_available():
        return profile
    limits = slurm.limits()
    most = [count for count in (profile.max_jobs, limits.max_jobs) if count]
    return dataclasses.replace(
        profile,
        max_array=min(profile.max_array, limits.max_array_size),
        max_jobs=min(most) if most else None,
    )


def snapshot_code(run: RunDir, *, write: bool = True) -> Path:
    """The snapshot of the code in the run directory, with the embedded models that the run uses."""
    from hpc.cluster.snapshot import checkout, take_snapshot

    config = load_run_config(run)
    used = {name.removeprefix(EMBEDDED) for name in used_models(config) if EMBEDDED in name}

    def leave_out(name: str) -> bool:
        parts = Path(name).parts
        return parts[:2] == ("sarhpc", "embedded") and len(parts) > 3 and parts[2] not in used

    return take_snapshot(run.root / "code", checkout(), CODE, leave_out, write=write)


def _print_submission(run: RunDir, record: SubmissionRecord) -> None:
    print(f"submission {record.number:03d} by profile {record.profile}: {len(record.jobs)} jobs")
    for job in record.jobs:
        array = f" x {job.elements} elements" if job.elements else ""
        after = f"  {job.dependency}" if job.dependency else ""
        after += "  submitted before by a command that died" * (job.job_id in record.adopted)
        print(f"  {job.stage:<14} job {job.job_id}{array}{after}")
        print(f"  {'':<14} log {_log_name(run, job.logs, job.job_id)}")
    print(f"  status  sarhpc status {run.quoted}")
    print(f"  cancel  sarhpc cancel {run.quoted}", flush=True)


def _log_name(run: RunDir, pattern: str, job_id: str) -> str:
    name = pattern.replace("%j", job_id).replace("%A", job_id).replace("%a", "0")
    return str(run.root / name.replace("%t", "0").replace("%r", "0"))
