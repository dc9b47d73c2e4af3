"""Stage `compare`: other models at the same prompts with the same seeds, for the report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir
from hpc.store.tree import digest_tree
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.generate import (
    GENERATE,
    check_generation,
    dry_run_notes,
    prompts_of,
    settings,
    shard_bytes,
    shards_of,
)
from sarhpc.stages.image_to_image_set import (
    BEGUN_IMAGES,
    check_image_to_image_set,
    image_to_image_settings,
    image_to_image_shards,
)
from sarhpc.stages.inputs.contracts import contract_for, missing
from sarhpc.stages.inputs.image_size import size_of_tiles, with_planned_size
from sarhpc.stages.inputs.model_layout import require_diffusers_model
from sarhpc.stages.inputs.paths import data_root, model_folder
from sarhpc.stages.inputs.sampling import existing_folder, require_sampled
from sarhpc.stages.inputs.scenes import planned_scene
from sarhpc.stages.inputs.source_images import SOURCES_SHA, check_source_images
from sarhpc.stages.planned_corpus import first_shards
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec, pass_all
from sarhpc.stages.work.image_shards import generated_shard
from sarhpc.stages.work.sharded import ShardResult, make_missing_shards, remove_stale_files


def compare_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that asks other models for the same prompts with the same seeds."""
    return Stage(
        name="compare",
        needs=COMPARE.needs_in(upstream),
        plan=plan_comparison,
        work=lambda work: make_missing_shards(
            make_compare_shard, work, workers=config.cluster.workers
        ),
        finish=lambda work: remove_stale_files(data_root(work.run, config) / "compare"),
    )


def plan_comparison(run: RunDir) -> Plan:
    """For every other model the first images of the corpus: same prompts, same seeds."""
    from sarhpc.generation.plan import plan_generation

    config = load_run_config(run)
    few = dataclasses.replace(_of_others(config), images=config.compare.images)
    shards: list[Mapping[str, Any]] = []
    for name, model in sorted(config.compare.models.items()):
        folder = model_folder(model)
        require_sampled(Path(folder), few)
        contract = contract_for(Path(folder), few)
        size = size_of_tiles(run, few, Path(folder))
        facts = {
            "model": folder,
            "model_sha": digest_tree(Path(folder)).sha256,
            "set": name,
            "contract": None if contract is None else contract.to_json(),
            **size,
            **planned_scene(run, config, few, Path(folder), size),
        }
        if few.table is not None:
            planned = first_shards(run, few, config.compare.images)
        else:
            planned = plan_generation(few, prompts_of(run, config))
        shards += [{**shard, **facts} for shard in planned]
    shards += image_to_image_shards(run, config)
    return make_plan("compare", shards, fingerprint=COMPARE.fingerprint(config))


def _of_others(config: RunConfig) -> GenerateConfig:
    """How other models make images: by the prompts alone, without its adapters and steering."""
    off: dict[str, Any] = {"adapter": None, "adapter_weight": 1.0, "adapters": [], "steer": None}
    return dataclasses.replace(settings(config), **off, image_to_image=None)


def make_compare_shard(run: RunDir, task: ShardTask) -> ShardResult:
    """Generate and publish one shard of another model."""
    config = load_run_config(run)
    root = data_root(run, config) / "compare" / task.inputs["set"]
    cfg = with_planned_size(_of_others(config), task.inputs)
    if SOURCES_SHA in task.inputs:
        cfg = with_planned_size(image_to_image_settings(config), task.inputs)
    # The fingerprint is that of the corpus with which the images are compared.
    path, fingerprint = root / f"{task.id}.tar", GENERATE.fingerprint(config)
    model = Path(task.inputs["model"])
    made = generated_shard(run, task, model, cfg, path, fingerprint, stage="compare")
    return dataclasses.replace(made, detail={"set": task.inputs["set"]})


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError unless other models can be compared as configured."""
    if config.compare.images < 1:
        raise ConfigError(f"compare.images={config.compare.images}: give at least 1")
    if settings(config).sweep is not None:
        raise ConfigError(
            "compare.models with generate.sweep: models are compared by what they draw, and a sweep"
            " images it by other sensors; set compare.models={}, or compare in a run without a "
            "sweep"
        )
    check_generation(_of_others(config))
    check_image_to_image_set(config)


def check_inputs(run: RunDir, config: RunConfig) -> None:
    """Raise ConfigError for models that cannot be sampled as the corpus is, or unusable images."""
    models = config.compare.models
    pass_all(
        lambda: check_source_images("compare.image_to_image", config.compare.image_to_image),
        *(
            functools.partial(require_diffusers_model, f"compare.models.{key}", name)
            for key, name in models.items()
        ),
    )
    if not run.plan_file("compare").exists():
        folders = [existing_folder(name) for name in models.values()]
        others = _of_others(config)
        pass_all(*(functools.partial(require_sampled, f, others) for f in folders if f is not None))


def unplanned_notes(config: RunConfig, plan: Plan | None) -> list[str]:
    """As of the corpus; of models that are not planned yet, those without a contract too."""
    from sarhpc.shards.contract import read_contract

    notes = dry_run_notes(config, plan)
    if plan is None:
        folders = [Path(model_folder(name)) for name in config.compare.models.values()]
        notes += [f"warning: {missing(f)}" for f in folders if read_contract(f) is None]
    return notes


def _shards(config: RunConfig) -> int:
    others = len(config.compare.models) * shards_of(config, config.compare.images)
    if config.compare.image_to_image is None:
        return others
    return others + shards_of(config, BEGUN_IMAGES)


COMPARE: StageSpec = StageSpec(
    name="compare",
    help="generate the same prompts with other models, for the report",
    branches=("compare", "generate"),
    needs_extra=lambda _: "generate",
    build=compare_stage,
    needs=("export", "generate"),
    enabled=lambda config: (
        config.generate is not None
        and (bool(config.compare.models) or config.compare.image_to_image is not None)
    ),
    check=check_settings,
    check_inputs=check_inputs,
    models=lambda config: list(config.compare.models.values()),
    sharded=True,
    shards=_shards,
    shard_bytes=shard_bytes,
    notes=unplanned_notes,
    request="gpu",
)
