"""What a run will cost before anything is submitted: GPU-hours, bytes and inodes of each stage.

GPU-hours are the most the requested walltime can book in one go of every job. Bytes per pixel
were measured on the demo (16 scenes of 768 px, 548 tiles and 96 images of 128 px), which compresses
as real scenes do within some ten per cent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.job.pipeline import Stage
from hpc.store.plan import Plan, read_plan
from hpc.store.rundir import RunDir
from sarhpc.diffusion.families.registry import family_of
from sarhpc.launch.fit import Fit, fit
from sarhpc.stages.config import RunConfig
from sarhpc.stages.paths import model_folder
from sarhpc.stages.run_config import load_run_config
from sarhpc.training.estimate.footprint import checkpoint_bytes

if TYPE_CHECKING:
    from hpc.cluster.profile import Profile, Resources

SCENE_BYTES_PER_PX = 13.4
SCENE_FILES = 9
TILE_BYTES_PER_PX = 7.1
CAPTIONED_BYTES_PER_PX = 7.2
OPTICAL_BYTES_PER_PX = 1.8
LATENT_BYTES_PER_PX = 0.5
"""Eight float32 numbers for each 8 x 8 px."""
IMAGE_BYTES_PER_PX = 1.15
CHECKPOINT_FILES = 12
CHECKPOINT_FILES_PER_RANK = 4
EXPORT_BYTES_PER_PARAMETER = 5.2


@dataclass(frozen=True)
class Estimate:
    """What one stage leaves on disk; None for what is not known yet."""

    shards: int | None
    bytes: float | None
    inodes: int | None


def show_plan_and_cost(run: RunDir, stages: Sequence[Stage], profile: Profile | None) -> None:
    """Print what each stage would make and cost; submits nothing."""
    config = load_run_config(run)
    hours, size, inodes, open_ends = 0.0, 0.0, 0, False
    for stage in stages:
        plan = _plan(run, stage)
        todo = None if plan is None else len(run.ledger(stage.name).missing(plan))
        resources = profile.resources_of(stage.name) if profile is not None else None
        print(_plan_line(run, stage, plan, todo))
        trained = None
        if stage.name == "train":
            trained = fit(config, plan, _ranks(config, resources))
            print("".join(f"  {line}\n" for line in trained.lines), end="")
        told = estimate(config, stage.name, plan, todo, resources, trained)
        for name, reason in list(plan.rejected.items())[:20] if plan is not None else ():
            print(f"  left out {name}: {reason}")
        if resources is not None:
            elements = min(resources.elements, told.shards or resources.elements)
            hours += gpu_hours(resources, elements)
            print(f"  {_request(resources, elements)}")
        if told.bytes is not None and told.inodes is not None:
            print(f"  about {told.bytes / 1e9:.2f} GB in {told.inodes} inodes")
        size, inodes = size + (told.bytes or 0.0), inodes + (told.inodes or 0)
        open_ends = open_ends or told.bytes is None
    more = ", and what is not planned yet" if open_ends else ""
    spent = f"at most {hours:.1f} GPU-hours, " if profile is not None else ""
    print(f"together: {spent}about {size / 1e9:.2f} GB in {inodes} inodes{more}")


def gpu_hours(resources: Resources, elements: int = 1) -> float:
    """The most one go of a job, or of an array of `elements`, can book."""
    return resources.gpus * resources.time_min / 60 * elements


def estimate(
    config: RunConfig,
    stage: str,
    plan: Plan | None,
    todo: int | None,
    resources: Resources | None,
    trained: Fit | None = None,
) -> Estimate:
    """What `stage` will leave on disk, from its plan or else from the configuration."""
    shards = todo if todo is not None else expected_shards(config, stage)
    if stage == "train":
        return Estimate(1, *_checkpoints(config, trained, resources))
    if stage == "export":
        parameters = _parameters(config)
        each = EXPORT_BYTES_PER_PARAMETER * (1 + len(config.export.variants) / 2)
        size = None if parameters is None else parameters * each
        return Estimate(1, size, 12)
    made = _bytes_per_shard(config, stage)
    if made is None or shards is None:
        return Estimate(shards, None, None)
    files = SCENE_FILES if stage == "simulate" else 1
    # Records are files until the stage is sealed.
    return Estimate(shards, made * shards, (files + 1) * shards + 20)


def expected_shards(config: RunConfig, stage: str) -> int | None:
    """Shards that a stage will have, as far as the configuration alone tells."""
    if stage == "simulate" and config.simulate is not None:
        return config.simulate.scenes
    generate = config.generate
    if stage == "generate" and generate is not None and generate.images is not None:
        return math.ceil(generate.images / generate.shard_samples)
    if stage == "prior" and config.prior is not None and config.prior.images is not None:
        return math.ceil(config.prior.images / config.prior.shard_samples)
    if stage == "compare" and generate is not None:
        return len(config.compare.models) * math.ceil(
            config.compare.images / generate.shard_samples
        )
    return None


def _plan(run: RunDir, stage: Stage) -> Plan | None:
    """The standing plan, or what would be planned; None while an upstream stage is missing."""
    if run.plan_file(stage.name).exists():
        return read_plan(run.plan_file(stage.name))
    if all(run.ledger(need).sealed for need in stage.needs):
        return stage.plan(run)
    return None


def _plan_line(run: RunDir, stage: Stage, plan: Plan | None, todo: int | None) -> str:
    if plan is None:
        missing = [need for need in stage.needs if not run.ledger(need).sealed]
        return f"{stage.name}: planned when {', '.join(missing)} is sealed"
    return f"{stage.name}: {len(plan.shards)} shards, {todo} to make, plan {plan.id}"


def _request(resources: Resources, elements: int) -> str:
    array = f"{elements} elements of " if elements > 1 else ""
    words = f"{array}{resources.nodes} nodes x {resources.tasks_per_node} tasks x "
    words += f"{resources.cpus_per_task} cores, {resources.gpus} GPUs, {resources.time_min} min"
    return f"{words}: at most {gpu_hours(resources, elements):.1f} GPU-hours"


def _bytes_per_shard(config: RunConfig, stage: str) -> float | None:
    tile_px = config.tile.tile_px**2
    if stage == "simulate" and config.simulate is not None:
        return SCENE_BYTES_PER_PX * config.simulate.size_px**2
    if stage == "tile":
        return TILE_BYTES_PER_PX * tile_px * config.tile.shard_samples
    if stage == "optical":
        return OPTICAL_BYTES_PER_PX * tile_px * config.tile.shard_samples
    if stage == "caption":
        return CAPTIONED_BYTES_PER_PX * tile_px * config.tile.shard_samples
    if stage == "encode":
        copies = 2 if config.train.azimuth_flip else 1
        return LATENT_BYTES_PER_PX * copies * tile_px * config.tile.shard_samples
    if stage == "prior" and config.prior is not None:
        return OPTICAL_BYTES_PER_PX * tile_px * config.prior.shard_samples
    if stage in ("generate", "compare") and config.generate is not None:
        rows, columns = config.generate.height_px, config.generate.width_px
        pixels = rows * columns if rows and columns else tile_px
        return IMAGE_BYTES_PER_PX * pixels * config.generate.shard_samples
    return None


def _ranks(config: RunConfig, resources: Resources | None) -> int:
    return resources.tasks if resources is not None else config.cluster.ranks


def _checkpoints(
    config: RunConfig, trained: Fit | None, resources: Resources | None
) -> tuple[float | None, int | None]:
    """Bytes and inodes of the checkpoints kept, and of the one being written."""
    if trained is None or trained.learned is None:
        return None, None
    cfg = config.train
    # The last step is among the newest anyway.
    kept = cfg.keep_last + 1 + (cfg.judge is not None)
    kept += max(trained.steps - 1, 0) // cfg.keep_every_steps if cfg.keep_every_steps else 0
    files = CHECKPOINT_FILES + CHECKPOINT_FILES_PER_RANK * _ranks(config, resources)
    return checkpoint_bytes(cfg, trained.learned) * kept, files * kept


def _parameters(config: RunConfig) -> int | None:
    """Trained parameters of the base model, from the headers of its files; None if not there."""
    folder = Path(model_folder(config.train.base_model))
    parts = family_of(folder).components
    files = [p for part in parts for p in (folder / part).glob("*.safetensors")]
    counts = [_elements(path) for path in files]
    return sum(counts) if counts and 0 not in counts else None


def _elements(path: Path) -> int:
    """Number of elements in a safetensors file, 0 if it is none.

    Its header is a length in eight bytes and as much JSON.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length < path.stat().st_size else b""
    if not text:
        return 0
    tensors = (entry for name, entry in json.loads(text).items() if name != "__metadata__")
    return sum(math.prod(tensor["shape"]) for tensor in tensors)
