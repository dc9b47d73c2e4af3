"""The supervisor of a run: submits again what is lost, within the restart budget.

A pass compares the unsealed stages with the queue. A stage without a job that can do it is lost,
whatever the reason: its batch script was killed, its node died, the controller forgot it. It is
submitted again with everything that waits for it, unless the same would happen again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, HpcError, IncompleteError, RunInUseError, is_disk_full
from hpc.job.pipeline import Stage, unsealed_stages
from hpc.observe.status import run_status
from hpc.store.lease import lease, live_holder
from hpc.store.local_jobs import live_local_jobs
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import (
    stopped_jobs,
    submissions_directory,
    submitted_stages,
    submitting_command,
)
from hpc.store.supervision import record_resubmission
from sarhpc.launch.obstacles import obstacle, progress_of
from sarhpc.launch.profile import chosen_executor
from sarhpc.launch.submission_plan import standing_jobs
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from hpc.cluster.profile import Profile
    from sarhpc.stages.config import RunConfig


@dataclass(frozen=True)
class Target:
    """What a supervisor submits to, and how much it does by itself."""

    profile: str | None = None
    """As for `--profile`; None for that of the newest submission."""
    executor: str | None = None
    """As for `--executor`."""
    leaving: tuple[str, ...] = ()
    """Ids of the job or array element this process belongs to, which ends soon."""
    until: str | None = None
    """The last stage to supervise; None for all that were submitted."""
    only_lost: bool = False
    """Submit only what was lost without anybody's decision, not what failed."""


@dataclass(frozen=True)
class Pass:
    """What one pass found and did."""

    actions: tuple[str, ...] = ()
    """One line each."""
    obstacles: tuple[str, ...] = ()
    """Why stages are not submitted again, one line each."""
    complete: bool = False
    """Every stage is sealed."""
    on_its_way: bool = False
    """A job is queued or running for some stage."""


def supervisor_lease(run: RunDir) -> Path:
    """The lease of the only supervisor of a run."""
    return submissions_directory(run) / ".lease-supervise.json"


def supervise(
    run: RunDir,
    target: Target,
    every_s: float | None,
    say: Callable[[str], None] = print,
) -> int:
    """Supervise until every stage is sealed; 0 then. One pass if `every_s` is None.

    Raises:
        RunInUseError: another supervisor of the run is alive.
        IncompleteError: nothing is on its way and nothing can be submitted; the message says why.
        TransientError: in a single pass, Slurm does not answer.
    """
    if (other := live_holder(supervisor_lease(run))) is not None:
        raise RunInUseError(f"{run.root} is supervised by {other}")
    said: set[str] = set()

    def _say_once(line: str) -> None:
        if line not in said:
            say(f"{now()} {line}")
        said.add(line)

    with lease(supervisor_lease(run)):
        while True:
            found = _attempt_pass(run, target, _say_once, last=every_s is None)
            for line in found.actions:
                say(f"{now()} {line}")
            for line in found.obstacles:
                _say_once(line)
            if found.complete:
                say(f"{now()} every submitted stage is sealed")
                return 0
            if not found.on_its_way:
                why = "; ".join(found.obstacles)
                raise IncompleteError(f"nothing is on its way and nothing is submitted: {why}")
            if every_s is None:
                return 0
            time.sleep(every_s)


def _attempt_pass(
    run: RunDir, target: Target, say_once: Callable[[str], None], *, last: bool
) -> Pass:
    """One pass; while Slurm does not answer, or refuses for now, the next one tries again."""
    from hpc.cluster.slurm import SlurmMissingError

    try:
        return supervise_once(run, target)
    except RunInUseError as error:
        say_once(str(error))
    except (ConfigError, SlurmMissingError):
        raise
    except HpcError as error:
        if last:
            raise
        say_once(f"{error}; trying again")
    except OSError as error:
        if last or not is_disk_full(error):
            raise
        say_once(f"no space left for {run.root}; trying again")
    return Pass(on_its_way=True)


def supervise_once(run: RunDir, target: Target) -> Pass:
    """One pass: submits what is lost.

    Raises:
        RunInUseError: another command is submitting for the run.
        ConfigError: the run has no executor that a supervisor can submit to.
        SlurmUnavailableError: Slurm does not answer.
    """
    config = load_run_config(run)
    todo = list(unsealed_stages(run, _supervised(run, line_of_stages(config), target.until)))
    if not todo:
        return Pass(complete=True)
    if run.stop_file.exists():
        return Pass(
            obstacles=(f"stopped by an operator; continue with: sarhpc resume {run.quoted}",)
        )
    if submitting_command(run) is not None:
        return Pass(on_its_way=True)
    executor, profile = chosen_executor(run, config, target.profile, target.executor)
    if profile is not None:
        return _pass_on_slurm(run, todo, profile, target)
    if submitted_stages(run) and target.executor is None:
        raise ConfigError(
            f"the jobs of {run.root} were submitted by scripts, without a profile; give "
            "`--profile NAME` of the cluster, or `--executor local`"
        )
    _require_said_where(run, config, target)
    if executor != "local":
        raise ConfigError(f"executor {executor} has no jobs to supervise; use local or slurm")
    return _pass_on_this_machine(run, todo, target)


def _require_said_where(run: RunDir, config: RunConfig, target: Target) -> None:
    """Raise ConfigError where jobs of this machine are a mere default and it has Slurm."""
    from hpc.cluster import slurm

    if target.executor or target.profile or config.cluster.profile or not slurm.is_available():
        return
    raise ConfigError(
        f"nothing says where the jobs of {run.root} belong, and this machine has Slurm: give "
        "`--profile NAME` of the cluster, or `--executor local` to start them on this machine"
    )


def _supervised(run: RunDir, stages: Sequence[Stage], until: str | None) -> list[Stage]:
    """The stages that were submitted by a command, all of them if none was; none after `until`."""
    submitted = submitted_stages(run)
    names = [stage.name for stage in stages]
    if until is not None and until not in names:
        raise ConfigError(f"no stage {until!r} in this run; it has {', '.join(names)}")
    end = len(names) if until is None else names.index(until) + 1
    return [stage for stage in stages[:end] if not submitted or stage.name in submitted]


def _pass_on_slurm(run: RunDir, todo: Sequence[Stage], profile: Profile, target: Target) -> Pass:
    from sarhpc.launch.moved_jobs import cancel_moved_jobs
    from sarhpc.launch.slurm import queued_jobs, record_ending_jobs, submit_missing

    cancel_moved_jobs(run)
    record_ending_jobs(run)
    ending = {*stopped_jobs(run), *target.leaving}
    queued = queued_jobs(run)
    # A job that completes seals its stage, is requeued or is gone: the next pass shows which.
    going = {
        name
        for name, jobs in queued.items()
        if standing_jobs(jobs, ending)
        or any(job.state == "COMPLETING" and job.id not in target.leaving for job in jobs)
    }
    lost = [stage for stage in unsealed_stages(run, todo) if stage.name not in going]
    if not lost:
        return Pass(on_its_way=True)
    obstacles = _obstacles(run, lost, target)
    excluded = _with_dependents(obstacles, todo, going)
    wanted = [stage for stage in todo if stage.name not in excluded]
    if all(stage.name in excluded for stage in lost):
        return Pass(obstacles=tuple(obstacles.values()), on_its_way=bool(going - excluded))
    causes = _causes(run, lost)
    _, record = submit_missing(run, wanted, profile, ending=target.leaving)
    if record is None:
        return Pass(obstacles=tuple(obstacles.values()), on_its_way=True)
    actions, first = [], [job for job in record.jobs if _could_run(run, todo, job.stage)]
    for name in dict.fromkeys(job.stage for job in first):
        ids = tuple(job.job_id for job in record.of(name))
        if set(ids) <= set(record.adopted):
            actions.append(f"{name}: job {', '.join(ids)} of a command that died is recorded now")
            continue
        why = causes.get(name, "what it needs is submitted again")
        _record(run, todo, name, why, ids, record.number)
        actions.append(f"{name}: {why}; submitted again as job {', '.join(ids)}")
    known = {*record.adopted, *(job.job_id for job in first)}
    behind = [f"{job.stage} {job.job_id}" for job in record.jobs if job.job_id not in known]
    if behind:
        actions.append(f"submitted behind: {', '.join(behind)}")
    return Pass(tuple(actions), tuple(obstacles.values()), on_its_way=True)


def _pass_on_this_machine(run: RunDir, todo: Sequence[Stage], target: Target) -> Pass:
    from sarhpc.launch.local import start_driver

    status = run_status(run, todo)
    if status.on_its_way or live_local_jobs(run):
        return Pass(on_its_way=True)
    first = next(unsealed_stages(run, todo), None)
    if first is None:
        return Pass(complete=True)
    obstacles = _obstacles(run, [first], target)
    if obstacles:
        return Pass(obstacles=tuple(obstacles.values()))
    why = _causes(run, [first])[first.name]
    submission, _ = start_driver(run, todo, "local")
    _record(run, todo, first.name, why, (submission.job_id,), None)
    action = f"{first.name}: {why}; started again as process {submission.job_id}"
    return Pass((action,), on_its_way=True)


def _obstacles(run: RunDir, lost: Sequence[Stage], target: Target) -> dict[str, str]:
    """Stage -> why it must not be submitted again, for those that must not."""
    found = {stage.name: obstacle(run, stage, only_lost=target.only_lost) for stage in lost}
    return {name: f"{name}: {why}" for name, why in found.items() if why is not None}


def _with_dependents(
    obstacles: Collection[str], stages: Sequence[Stage], going: Collection[str]
) -> set[str]:
    """The stages with obstacles, and those that need one of them and have no job."""
    excluded = set(obstacles)
    for stage in stages:
        if excluded & set(stage.needs) and stage.name not in going:
            excluded.add(stage.name)
    return excluded


def _could_run(run: RunDir, stages: Sequence[Stage], name: str) -> bool:
    [stage] = [stage for stage in stages if stage.name == name]
    return all(run.ledger(need).sealed for need in stage.needs)


def _causes(run: RunDir, lost: Sequence[Stage]) -> dict[str, str]:
    """Stage -> what became of its last job, in a few words."""
    causes = {}
    for stage in run_status(run, lost).stages:
        problem = (stage.problem or "no job is queued or running").split("; continue with")[0]
        causes[stage.disk.name] = " ".join(problem.split())
    return causes


def _record(
    run: RunDir,
    stages: Sequence[Stage],
    name: str,
    why: str,
    jobs: tuple[str, ...],
    submission: int | None,
) -> None:
    [stage] = [stage for stage in stages if stage.name == name]
    record_resubmission(run, name, progress_of(run, stage), why, jobs, submission)
