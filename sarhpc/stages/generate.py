"""Stages `generate` and `compare`: the synthetic corpus, and other models at the same prompts."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.job.pipeline import Stage, Work
from hpc.job.stop import stop_signalled
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir, open_run
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.paths import data_root, model_folder
from sarhpc.stages.prompts import (
    evenly_by_class,
    held_out_splits,
    known_prompts,
    sample_shards,
)
from sarhpc.stages.run_config import load_run_config, stage_fingerprint
from sarhpc.stages.sharded import (
    Made,
    manifest_sha,
    sealed_paths,
    sealed_records,
    sweep,
    work_through,
)
from sarhpc.stages.tree import digest_tree

if TYPE_CHECKING:
    from sarhpc.generation.steering import SteeringLayers

CARD_SETTINGS = ("steps", "guidance", "scheduler", "batch", "threads")


def generate_stage(config: RunConfig) -> Stage:
    """The stage that generates the corpus with the exported model."""
    return Stage(
        name="generate",
        needs=("export",),
        plan=plan_corpus,
        work=lambda work: work_through(make_corpus_shard, work, workers=config.cluster.workers),
        finish=package,
    )


def compare_stage(config: RunConfig) -> Stage:
    """The stage that asks other models for the same prompts with the same seeds."""
    return Stage(
        name="compare",
        needs=("export", "generate"),
        plan=plan_comparison,
        work=lambda work: work_through(make_compare_shard, work, workers=config.cluster.workers),
        finish=lambda work: sweep(data_root(work.run, config) / "compare"),
    )


def settings(config: RunConfig) -> GenerateConfig:
    """The generation settings of a run that has them."""
    assert config.generate is not None
    return config.generate


def prompts_of(run: RunDir, config: RunConfig) -> list[str] | None:
    """Captions of held-out tiles, balanced over classes, unless the configuration names prompts.

    Where layers steer, each tile's own caption, in the order in which the tiles steer.
    """
    generate = settings(config)
    if generate.prompts or generate.prompts_file:
        return None
    layers = steering_layers(run, config)
    if layers is not None:
        return [layers.caption(number) for number in range(len(layers))]
    splits = held_out_splits(run, config.evaluate.real_splits)
    return [p.caption for p in evenly_by_class(list(known_prompts(run, splits)))]


def steering_layers(run: RunDir, config: RunConfig) -> SteeringLayers | None:
    """What steers the images, if anything does.

    Raises:
        DataError: there are no tiles to steer by.
    """
    from sarhpc.generation.steering import SteeringLayers

    steer = settings(config).steer
    if steer is None:
        return None
    if steer.shards is None:
        splits = held_out_splits(run, config.evaluate.real_splits)
        return SteeringLayers(sample_shards(run, splits), steer)
    return SteeringLayers(sorted(Path(steer.shards).rglob("*.tar")), steer)


def _steering_facts(run: RunDir, config: RunConfig) -> dict[str, str]:
    """Digest of the shards that steer, for the plan."""
    steer = settings(config).steer
    if steer is None:
        return {}
    named = steer.shards is not None
    digest = digest_tree(Path(str(steer.shards))).sha256 if named else manifest_sha(run, "caption")
    return {"layers_sha": digest}


def plan_corpus(run: RunDir) -> Plan:
    """Shards of (prompt, seed); names the model by its digest."""
    from sarhpc.generation.plan import plan_generation

    config = load_run_config(run)
    [export] = sealed_records(run, "export")
    shards = plan_generation(settings(config), prompts_of(run, config))
    model = {
        "model": export.path,
        "model_sha": export.sha256,
        **_named_adapter(config, export.path),
        **_steering_facts(run, config),
    }
    return make_plan(
        "generate",
        [{**shard, **model} for shard in shards],
        fingerprint=stage_fingerprint(config, "generate"),
    )


def _named_adapter(config: RunConfig, model: str) -> dict[str, str]:
    """Digest of the adapter that the configuration names; one in the model's folder is in its."""
    from sarhpc.generation.adapter import adapter_file

    cfg = settings(config)
    file = adapter_file(Path(model), cfg)
    if cfg.adapter is None or file is None:
        return {}
    with file.open("rb") as opened:
        return {"adapter_sha": hashlib.file_digest(opened, "sha256").hexdigest()}


def plan_comparison(run: RunDir) -> Plan:
    """For every other model the first images of the corpus: same prompts, same seeds."""
    from sarhpc.generation.plan import plan_generation

    config = load_run_config(run)
    few = dataclasses.replace(settings(config), images=config.compare.images, steer=None)
    shards: list[Mapping[str, Any]] = []
    for name, model in sorted(config.compare.models.items()):
        folder = model_folder(model)
        facts = {"model": folder, "model_sha": digest_tree(Path(folder)).sha256, "set": name}
        shards += [{**shard, **facts} for shard in plan_generation(few, prompts_of(run, config))]
    return make_plan("compare", shards, fingerprint=stage_fingerprint(config, "compare"))


def make_corpus_shard(run: RunDir, task: ShardTask) -> Made:
    """Generate and publish one shard of the corpus."""
    root = data_root(run, load_run_config(run)) / "synthetic"
    return generated_shard(run, task, settings(load_run_config(run)), root / f"{task.id}.tar")


def make_compare_shard(run: RunDir, task: ShardTask) -> Made:
    """Generate and publish one shard of another model."""
    config = load_run_config(run)
    root = data_root(run, config) / "compare" / task.inputs["set"]
    # The adapter of the corpus is none of another model's, nor is what steers it.
    cfg = dataclasses.replace(settings(config), adapter=None, adapter_weight=1.0, steer=None)
    made = generated_shard(run, task, cfg, root / f"{task.id}.tar")
    return dataclasses.replace(made, detail={"set": task.inputs["set"]})


def generated_shard(
    run: RunDir,
    task: ShardTask,
    cfg: GenerateConfig,
    path: Path,
    stage: str = "generate",
    image_member: str = "sar.png",
) -> Made:
    """Generate the planned shard by the model it names, and publish it at `path`.

    Args:
        run: in which it is planned.
        task: the shard.
        cfg: how images are made.
        path: of the tar.
        stage: whose configuration the images carry the digest of.
        image_member: `sar.png`, or `optic.png` for images that show no radar.
    """
    from sarhpc.generation.sampler import Provenance, generate_shard
    from sarhpc.shards.writer import write_shard

    fingerprint = stage_fingerprint(load_run_config(run), stage)
    provenance = Provenance(task.inputs["model_sha"], fingerprint)
    pipeline = _pipeline(Path(task.inputs["model"]), cfg)
    layers = None if cfg.steer is None else _indexed_layers(run.root)
    generated = generate_shard(
        task.number,
        task.inputs,
        cfg,
        pipeline,
        provenance,
        stop=lambda: stop_signalled() or run.stop_file.exists(),
        layers=layers,
        image_member=image_member,
    )
    summary = write_shard(path, generated.samples)
    return Made(path, summary.samples, summary.bytes, summary.sha256, generated.rejected)


# A worker process keeps the pipeline it loaded last: one load per worker and model, not per shard.
_loaded: dict[tuple[str, str], Any] = {}


def _pipeline(model: Path, cfg: GenerateConfig) -> Any:
    from sarhpc.generation.model import load_pipeline

    key = (str(model), f"{cfg.scheduler} {cfg.dtype} {cfg.adapter} {cfg.adapter_weight}")
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_pipeline(model, cfg)
    return _loaded[key]


@functools.lru_cache(maxsize=1)
def _indexed_layers(root: Path) -> SteeringLayers | None:
    """What steers, indexed once a worker: the whole corpus is steered by the same shards."""
    run = open_run(root)
    return steering_layers(run, load_run_config(run))


def package(work: Work) -> None:
    """Publish the index and the card of the finished corpus."""
    from sarhpc.generation.corpus import CorpusFacts, package_corpus

    config = load_run_config(work.run)
    cfg = settings(config)
    root = data_root(work.run, config) / "synthetic"
    sweep(root)
    rejected: dict[str, int] = {}
    for record in work.ledger.records().values():
        for reason, count in record.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    [export] = sealed_records(work.run, "export")
    facts = CorpusFacts(
        name=f"Synthetic SAR corpus of run {work.run.name}",
        model_sha=export.sha256,
        config_fingerprint=stage_fingerprint(config, "generate"),
        settings={
            name: getattr(cfg, name)
            for name in ("steps", "guidance", "scheduler", "batch", "threads")
        },
        rejected=rejected,
    )
    package_corpus(root, sealed_paths(work), facts)
