"""Launching: one job per stage, and a driver job that takes the stages in order."""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage, unsealed_stages
from hpc.observe.logs import LogFollower
from hpc.store.rundir import RunDir
from sarhpc.launch.job import LINE, StageWork
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from hpc.cluster.profile import Profile
    from hpc.cluster.submit import Resources, Submission

log = logging.getLogger(__name__)

POLL_S = 0.5


def launch(run: RunDir, what: str, executor: str, *, wait: bool, force: bool = False) -> int:
    """Submit a stage, or `line:FIRST:LAST`; say where to look; wait if asked, else return 0."""
    from hpc.cluster.submit import submit

    config = load_run_config(run)
    is_line = what.startswith(LINE)
    submission = submit(
        StageWork(str(run.root), what, force, executor),
        name=f"{run.name}-{'line' if is_line else what}",
        logs=run.root / "logs" if is_line else run.logs(what),
        executor=executor,
        resources=driver_resources() if is_line else resources(config, stage_named(config, what)),
    )
    print(f"job {submission.job_id} ({what}) by the {executor} executor")
    for path in submission.stderr:
        print(f"  log     {path}")
    print(f"  status  sarhpc status {run.root}")
    print(f"  stop    sarhpc stop {run.root}", flush=True)
    # A debug job runs inside `wait`, in this process.
    return _follow(submission) if wait or executor == "debug" else 0


def chosen_executor(
    run: RunDir, config: RunConfig, profile_name: str | None, executor: str | None
) -> tuple[str, Profile | None]:
    """The executor asked for, and the profile of its cluster if that is `slurm`.

    What the command does not say the newest submission of the run does, then the run's
    configuration.

    Raises:
        ConfigError: there is no such profile, or Slurm without one.
    """
    from hpc.cluster.profile import load_profile
    from sarhpc.launch.slurm import last_profile

    if executor in ("local", "debug"):
        return executor, None
    name = profile_name or config.cluster.profile or last_profile(run)
    if name is None and executor is None and config.cluster.executor != "slurm":
        return config.cluster.executor, None
    profile = load_profile(name) if name is not None else _profile_of_this_cluster()
    if executor != "slurm" and profile.executor != "slurm":
        return profile.executor, None
    return "slurm", profile


def _profile_of_this_cluster() -> Profile:
    """The profile that names the cluster this machine belongs to."""
    from hpc.cluster import slurm
    from hpc.cluster.profile import profiles_of_cluster

    cluster = slurm.cluster_name() if slurm.is_available() else None
    found = profiles_of_cluster(cluster) if cluster else []
    if len(found) != 1:
        raise ConfigError(
            f"which profile for cluster {cluster or 'without a name'}? Give --profile NAME; "
            "`sarhpc doctor --write-profile` drafts one from what Slurm says"
        )
    return found[0]


def _follow(submission: Submission) -> int:
    """Copy the job's log to standard error until the job ends; its exit code."""
    ended = threading.Event()
    thread = threading.Thread(target=_copy, args=(submission.stderr, ended), daemon=True)
    thread.start()
    code = submission.wait()
    ended.set()
    thread.join(timeout=5)
    if submission.failure:
        print(submission.failure, file=sys.stderr)
    return code


def _copy(paths: tuple[Path, ...], ended: threading.Event) -> None:
    follower, last = LogFollower(), False
    while not last:
        last = ended.is_set()
        follower.copy(paths, sys.stderr)
        time.sleep(POLL_S)


def driver_resources() -> Resources:
    """What the driver of a line needs: one task that mostly waits."""
    from hpc.cluster.submit import Resources

    return Resources(time_min=24 * 60)


def resources(config: RunConfig, stage: Stage) -> Resources:
    """What a stage needs: the ranks of a collective one, the workers of a sharded one."""
    from hpc.cluster.submit import Resources

    if stage.collective:
        return Resources(tasks_per_node=config.cluster.ranks, time_min=config.cluster.time_min)
    return Resources(cpus_per_task=config.cluster.workers, time_min=config.cluster.time_min)


def drive_line(run: RunDir, what: str, executor: str, *, force: bool = False) -> int:
    """Take the unsealed stages from FIRST to LAST in order, a job each; the first non-zero code."""
    from hpc.cluster.submit import submit

    config = load_run_config(run)
    _, first, last = what.split(":")
    stages = line_of_stages(config)
    names = [stage.name for stage in stages]
    for stage in unsealed_stages(run, stages[names.index(first) : names.index(last) + 1]):
        if run.stop_file.exists():
            log.info("stopped before stage=%s; go on with `sarhpc resume %s`", stage.name, run.root)
            return 0
        clock = time.monotonic()
        submission = submit(
            StageWork(str(run.root), stage.name, force),
            name=f"{run.name}-{stage.name}",
            logs=run.logs(stage.name),
            executor=executor,
            resources=resources(config, stage),
        )
        log.info("stage=%s job=%s log=%s", stage.name, submission.job_id, submission.stderr[0])
        code = submission.wait()
        log.info("stage=%s exit=%d seconds=%.1f", stage.name, code, time.monotonic() - clock)
        if code == 0 and run.stop_file.exists():
            continue
        if code != 0 or not run.ledger(stage.name).sealed:
            _explain(submission, stage.name)
            return code
    return 0


def _explain(submission: Submission, stage: str) -> None:
    for path in submission.stderr:
        if path.exists():
            tail = path.read_text(errors="replace").splitlines()[-12:]
            log.error("stage=%s ended early; end of %s:\n%s", stage, path, "\n".join(tail))
    if submission.failure:
        log.error("stage=%s %s", stage, submission.failure)
