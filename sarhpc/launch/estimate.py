"""What a run will cost before anything is submitted: GPU-hours, bytes and inodes of each stage.

GPU-hours are the most that the requested walltime can book in one start of every job. The stages
give bytes per pixel measured on the demo (16 scenes of 768 px, 548 tiles and 96 images of 128 px),
which compresses as real scenes do within some ten per cent.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, VerificationError
from hpc.job.pipeline import Stage, why_empty
from hpc.store.plan import Plan, read_plan
from hpc.store.rundir import RunDir, planning_in
from sarhpc.launch.profile import number_of_ranks
from sarhpc.launch.room import Need, require_room
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import spec_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import Estimate, StageSpec

if TYPE_CHECKING:
    from hpc.cluster.profile import Profile, Resources


def show_plan_and_cost(run: RunDir, stages: Sequence[Stage], profile: Profile | None) -> None:
    """Print what each stage would make and cost, and submit nothing.

    Raises:
        ConfigError: a stage would make nothing, or the run has no room for its data.
    """
    config = load_run_config(run)
    hours, size, inodes, open_ends, need = 0.0, 0.0, 0, False, Need()
    for stage in stages:
        plan = _plan(run, stage)
        todo = None if plan is None else len(run.ledger(stage.name).missing(plan))
        resources = profile.resources_of(stage.name) if profile is not None else None
        print(_plan_line(run, stage, plan, todo))
        ranks = number_of_ranks(config, profile, stage.name)
        left = estimate(spec_named(stage.name), config, plan, todo, ranks)
        for line in left.lines:
            print(f"  {line}")
        for name, reason in list(plan.rejected.items())[:20] if plan is not None else ():
            print(f"  left out {name}: {reason}")
        if resources is not None:
            elements = min(resources.elements, left.shards or resources.elements)
            hours += gpu_hours(resources, elements)
            print(f"  {_request(resources, elements)}")
        if left.bytes is not None and left.inodes is not None:
            print(f"  about {left.bytes / 1e9:.2f} GB in {left.inodes} inodes")
        size, inodes = size + (left.bytes or 0.0), inodes + (left.inodes or 0)
        need.add(spec_named(stage.name), left)
        open_ends = open_ends or left.bytes is None
    more = ", and what is not planned yet" if open_ends else ""
    spent = f"at most {hours:.1f} GPU-hours, " if profile is not None else ""
    print(f"together: {spent}about {size / 1e9:.2f} GB in {inodes} inodes{more}")
    require_room(run, config, need)


def require_room_for(run: RunDir, stages: Sequence[Stage]) -> None:
    """Raise ConfigError unless the shards that `stages` are known to lack have room on the disk.

    Checkpoints are counted by a dry run only: that takes seconds, and their models.

    Raises:
        ConfigError: they have not.
    """
    config = load_run_config(run)
    need = Need()
    for stage in stages:
        spec = spec_named(stage.name)
        if spec.estimate is not None:
            continue
        plan = _plan_if_readable(run.plan_file(stage.name))
        todo = None if plan is None else len(run.ledger(stage.name).missing(plan))
        quick = dataclasses.replace(spec, notes=lambda config, plan: ())
        need.add(spec, estimate(quick, config, plan, todo, ranks=1))
    require_room(run, config, need)


def _plan_if_readable(path: Path) -> Plan | None:
    """The plan; None where there is none, or one that the job will fail by and report."""
    try:
        return read_plan(path) if path.exists() else None
    except (OSError, VerificationError):
        return None


def gpu_hours(resources: Resources, elements: int = 1) -> float:
    """The most that one start of a job, or of an array of `elements`, can book."""
    return resources.gpus * resources.time_min / 60 * elements


def estimate(
    spec: StageSpec, config: RunConfig, plan: Plan | None, todo: int | None, ranks: int
) -> Estimate:
    """What a stage will leave on disk, from its plan or else from the configuration.

    Args:
        spec: of the stage.
        config: of the run.
        plan: of the stage, if it can be made yet.
        todo: shards of the plan that have no record.
        ranks: processes of a collective stage.
    """
    if spec.estimate is not None:
        return spec.estimate(config, plan, ranks)
    shards = spec.shards(config) if todo is None else todo
    size, notes = spec.shard_bytes(config), tuple(spec.notes(config, plan))
    if size is None or shards is None:
        return Estimate(shards, None, None, notes)
    # Records are files until the stage is sealed.
    return Estimate(shards, size * shards, (spec.shard_files + 1) * shards + 20, notes)


def _plan(run: RunDir, stage: Stage) -> Plan | None:
    """The published plan, or what would be planned; None while an upstream stage is not sealed."""
    if run.plan_file(stage.name).exists():
        return read_plan(run.plan_file(stage.name))
    if all(run.ledger(need).sealed for need in stage.needs):
        with tempfile.TemporaryDirectory() as scratch:
            plan = stage.plan(planning_in(run, stage.name, Path(scratch)))
        if not plan.shards:
            raise ConfigError(why_empty(plan))
        return plan
    return None


def _plan_line(run: RunDir, stage: Stage, plan: Plan | None, todo: int | None) -> str:
    if plan is None:
        missing = [need for need in stage.needs if not run.ledger(need).sealed]
        sealed = "is sealed" if len(missing) == 1 else "are sealed"
        return f"{stage.name}: planned when {', '.join(missing)} {sealed}"
    return f"{stage.name}: {len(plan.shards)} shards, {todo} to make, plan {plan.id}"


def _request(resources: Resources, elements: int) -> str:
    array = f"{elements} elements of " if elements > 1 else ""
    request = f"{array}{resources.nodes} nodes x {resources.tasks_per_node} tasks x "
    request += f"{resources.cpus_per_task} cores, {resources.gpus} GPUs, {resources.time_min} min"
    return f"{request}: at most {gpu_hours(resources, elements):.1f} GPU-hours"
