"""Stage `caption`: tile shards to captioned samples."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from hpc.job.pipeline import Stage
from hpc.store.plan import Plan, ShardTask
from hpc.store.rundir import RunDir
from sarhpc.captioning.choice import WRITING
from sarhpc.captioning.config import CaptionConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.paths import data_root, model_folder
from sarhpc.stages.run_config import load_run_config, stage_fingerprint
from sarhpc.stages.sharded import Made, sealed_records, sweep, work_through

if TYPE_CHECKING:
    from sarhpc.captioning.captioners.captioner import Captioner, Drafter

TRAINED = "run:caption-train"
"""Model name that stands for the captioner this run fine-tunes."""


def caption_stage(config: RunConfig) -> Stage:
    """The stage that captions tiles: same shard numbers, same keys, so it can be redone alone."""
    needs = ["tile"]
    needs += ["optical"] if config.optical is not None else []
    needs += ["caption-train"] if config.caption_train is not None else []
    return Stage(
        name="caption",
        needs=tuple(needs),
        plan=plan_caption_shards,
        work=lambda work: work_through(make_caption_shard, work, workers=config.cluster.workers),
        finish=lambda work: sweep(data_root(work.run, config) / "samples"),
    )


def plan_caption_shards(run: RunDir) -> Plan:
    """One shard per tile shard: its digest, tiles that repeat others, where optical images are."""
    from sarhpc.stages.optical import optical_by_shard
    from sarhpc.stages.tile import duplicates_by_shard

    config = load_run_config(run)
    records = sealed_records(run, "tile")
    duplicates = duplicates_by_shard(run, config)
    paired = optical_by_shard(run, config)
    shards = []
    for r in records:
        inputs = {"source": r.path, "sha256": r.sha256, "split": r.detail["split"]}
        left_out = {"duplicate_of": duplicates[r.shard]} if r.shard in duplicates else {}
        shards.append(ShardTask(r.shard, inputs | left_out | paired.get(r.shard, {})))
    return Plan("caption", tuple(shards), stage_fingerprint(config, "caption"))


def make_caption_shard(run: RunDir, task: ShardTask) -> Made:
    """Caption and publish the samples of one shard."""
    from sarhpc.captioning.caption import caption_samples
    from sarhpc.shards.writer import write_shard
    from sarhpc.stages.optical import read_tiles

    config = load_run_config(run)
    captioner_config = resolved_captioner(run, config)
    split = task.inputs["split"]
    path = data_root(run, config) / "samples" / split / f"{task.id}.tar"
    duplicates = task.inputs.get("duplicate_of", {})
    tiles = (s for s in read_tiles(task.inputs) if s.key not in duplicates)
    captioned = caption_samples(tiles, _captioner(captioner_config), captioner_config)
    summary = write_shard(path, captioned.samples)
    rejected = captioned.rejected | ({"duplicate_of": len(duplicates)} if duplicates else {})
    return Made(path, summary.samples, summary.bytes, summary.sha256, rejected, {"split": split})


def resolved_captioner(run: RunDir, config: RunConfig) -> CaptionConfig:
    """The caption configuration with the models that it takes as folders."""
    name, clip = config.caption.model, config.caption.clip
    if name == TRAINED:
        name = str(run.stage("caption-train") / "model")
    elif config.caption.captioner in WRITING:
        name = model_folder(name)  # only then the snapshot of a job's code holds an embedded one
    if clip is not None:
        clip = dataclasses.replace(clip, model=model_folder(clip.model))
    return dataclasses.replace(config.caption, model=name, clip=clip)


# A worker process keeps the captioner it loaded: one load per worker, not per shard.
_loaded: dict[str, Captioner | Drafter] = {}


def _captioner(settings: CaptionConfig) -> Captioner | Drafter:
    from sarhpc.captioning.captioners.registry import open_captioner

    key = repr(settings)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = open_captioner(settings)
    return _loaded[key]
