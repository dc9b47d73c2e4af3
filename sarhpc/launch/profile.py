"""Which executor and profile a command means, and what a stage asks for without a profile."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage
from hpc.store.rundir import RunDir
from hpc.store.submissions import read_submissions
from sarhpc.stages.config import RunConfig
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from hpc.cluster.profile import Profile, Resources


def chosen_executor(
    run: RunDir, config: RunConfig, profile_name: str | None, executor: str | None
) -> tuple[str, Profile | None]:
    """The requested executor, and the profile of its cluster if that is `slurm`.

    The command takes precedence, then the run's configuration, then its newest submission.

    Raises:
        ConfigError: there is no such profile, or Slurm without one.
    """
    from hpc.cluster.profile import load_profile

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
        where = f"cluster {cluster}" if cluster else "this machine, which names no cluster"
        raise ConfigError(
            f"{len(found)} profiles match {where}: give --profile NAME; "
            "`sarhpc doctor --write-profile` drafts one from Slurm's configuration"
        )
    return found[0]


def last_profile(run: RunDir) -> str | None:
    """Profile of the newest submission by a verb, as for `--profile`; None if there is none."""
    files = [record.profile_file for record in read_submissions(run) if record.profile_file]
    return files[-1] if files else None


def number_of_ranks(config: RunConfig, profile: Profile | None, stage: str) -> int:
    """Processes of a collective stage: tasks of its job, or `cluster.ranks` without a profile."""
    return config.cluster.ranks if profile is None else profile.resources_of(stage).tasks


def resources(config: RunConfig, stage: Stage) -> Resources:
    """What a stage needs: the ranks of a collective one, the workers of a sharded one."""
    from hpc.cluster.profile import Resources

    if stage.collective:
        return Resources(tasks_per_node=config.cluster.ranks, time_min=config.cluster.time_min)
    return Resources(cpus_per_task=config.cluster.workers, time_min=config.cluster.time_min)


def requested_resources(run: RunDir, stages: Sequence[Stage]) -> dict[str, Resources]:
    """What each stage asks for: by the profile last submitted to, else on this machine."""
    from hpc.cluster.profile import load_profile

    config = load_run_config(run)
    submissions = read_submissions(run)
    if submissions:
        newest = submissions[-1]
        file = Path(newest.profile_file)
        try:
            profile = load_profile(str(file) if file.is_file() else newest.profile)
        except ConfigError as error:
            print(f"widths of stages are not known: {error}", file=sys.stderr)
        else:
            return {stage.name: profile.resources_of(stage.name) for stage in stages}
    return {stage.name: resources(config, stage) for stage in stages}
