"""What a run will cost before anything is submitted: GPU-hours, bytes and inodes of each stage.

GPU-hours are the most that the requested walltime can book in one start of every job. The stages
give bytes per pixel measured on the demo (16 scenes of 768 px, 548 tiles and 96 images of 128 px),
which compresses as real scenes do within some ten per cent.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError, DataError, VerificationError
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


def plan_and_cost(
    run: RunDir,
    stages: Sequence[Stage],
    profile: Profile | None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """What each stage would make and cost, as lines to `say` and as a JSON document.

    Raises:
        ConfigError: a stage would make nothing, or the run has no room for its data.
    """
    config = load_run_config(run)
    need, rows = Need(), []
    for stage in stages:
        row, left = _stage_row(run, config, stage, profile)
        _say_row(row, say)
        need.add(spec_named(stage.name), left)
        rows.append(row)
    known = [row for row in rows if row["bytes"] is not None]
    total = {
        "gpu_hours": None if profile is None else sum(row["gpu_hours"] for row in rows),
        "bytes": sum(row["bytes"] for row in known),
        "inodes": sum(row["inodes"] or 0 for row in rows),
        "complete": len(known) == len(rows),
    }
    more = "" if total["complete"] else ", and what is not planned yet"
    spent = "" if profile is None else f"at most {total['gpu_hours']:.1f} GPU-hours, "
    say(f"together: {spent}about {total['bytes'] / 1e9:.2f} GB in {total['inodes']} inodes{more}")
    require_room(run, config, need)
    return {"run": str(run.root), "stages": rows, "together": total}


def _stage_row(
    run: RunDir, config: RunConfig, stage: Stage, profile: Profile | None
) -> tuple[dict[str, Any], Estimate]:
    """What a stage would make and cost, as `--dry-run --json` shows it."""
    plan = _plan(run, stage)
    todo = None if plan is None else len(run.ledger(stage.name).missing(plan))
    ranks = number_of_ranks(config, profile, stage.name)
    try:
        memory = _memory(config, profile, ranks)
        left = estimate(spec_named(stage.name), config, plan, todo, ranks, memory)
    except DataError as error:  # such as shapes of a base model that cannot be read
        raise ConfigError(f"{stage.name}: {error}") from error
    row: dict[str, Any] = {
        "stage": stage.name,
        "plan": None if plan is None else plan.id,
        "shards": None if plan is None else len(plan.shards),
        "to_make": todo,
        "waits_for": [need for need in stage.needs if not run.ledger(need).sealed],
        "notes": list(left.lines),
        "left_out": {} if plan is None else dict(plan.rejected),
        "bytes": left.bytes,
        "inodes": left.inodes,
    }
    if profile is not None:
        resources = profile.resources_of(stage.name)
        elements = min(resources.elements, left.shards or resources.elements)
        row["request"] = _request(resources, elements)
        row["gpu_hours"] = gpu_hours(resources, elements)
    return row, left


def _memory(config: RunConfig, profile: Profile | None, ranks: int) -> float | None:
    """Bytes of each rank's GPU by the profile, or on this machine; None where nothing asks."""
    if config.train.fit is None:
        return None
    from sarhpc.stages.training_fit import local_memory, usable_memory

    if profile is None or profile.executor != "slurm":
        return local_memory(ranks)
    if profile.gpu_memory_gb is None:
        return None
    return usable_memory(profile.gpu_memory_gb)


def _say_row(row: Mapping[str, Any], say: Callable[[str], None]) -> None:
    say(_plan_line(row))
    for line in row["notes"]:
        say(f"  {line}")
    for name, reason in list(row["left_out"].items())[:20]:
        say(f"  left out {name}: {reason}")
    if "request" in row:
        say(f"  {row['request']}")
    if row["bytes"] is not None and row["inodes"] is not None:
        say(f"  about {row['bytes'] / 1e9:.2f} GB in {row['inodes']} inodes")


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
    spec: StageSpec,
    config: RunConfig,
    plan: Plan | None,
    todo: int | None,
    ranks: int,
    memory: float | None = None,
) -> Estimate:
    """What a stage will leave on disk, from its plan or else from the configuration.

    Args:
        spec: of the stage.
        config: of the run.
        plan: of the stage, if it can be made yet.
        todo: shards of the plan that have no record.
        ranks: processes of a collective stage.
        memory: bytes of each one's GPU, where they are known.
    """
    if spec.estimate is not None:
        return spec.estimate(config, plan, ranks, memory)
    shards = spec.shards(config) if todo is None else todo
    size, notes = spec.shard_bytes(config), tuple(spec.notes(config, plan))
    if size is None or shards is None:
        return Estimate(shards, None, None, notes)
    # Records are files until the stage is sealed.
    files = spec.shard_files(config) + 1
    return Estimate(shards, size * shards, files * shards + 20, notes)


def _plan(run: RunDir, stage: Stage) -> Plan | None:
    """The published plan, or what would be planned; None while an upstream stage is not sealed."""
    if run.plan_file(stage.name).exists():
        return read_plan(run.plan_file(stage.name))
    if all(run.ledger(need).sealed for need in stage.needs):
        try:
            with tempfile.TemporaryDirectory() as scratch:
                plan = stage.plan(planning_in(run, stage.name, Path(scratch)))
        except DataError as error:
            raise ConfigError(f"{stage.name} cannot be planned: {error}") from error
        if not plan.shards:
            raise ConfigError(why_empty(plan))
        return plan
    return None


def _plan_line(row: Mapping[str, Any]) -> str:
    if row["plan"] is None:
        sealed = "is sealed" if len(row["waits_for"]) == 1 else "are sealed"
        return f"{row['stage']}: planned when {', '.join(row['waits_for'])} {sealed}"
    return f"{row['stage']}: {row['shards']} shards, {row['to_make']} to make, plan {row['plan']}"


def _request(resources: Resources, elements: int) -> str:
    array = f"{elements} elements of " if elements > 1 else ""
    request = f"{array}{resources.nodes} nodes x {resources.tasks_per_node} tasks x "
    request += f"{resources.cpus_per_task} cores, {resources.gpus} GPUs, {resources.time_min} min"
    return f"{request}: at most {gpu_hours(resources, elements):.1f} GPU-hours"
