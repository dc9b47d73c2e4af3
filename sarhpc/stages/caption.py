"""Stage `caption`: tile shards to captioned samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpc.job.pipeline import Stage, Work
from hpc.job.shard_progress import counted
from hpc.store.plan import Plan, ShardTask
from hpc.store.rundir import RunDir
from sarhpc.captioning.config import CaptionConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.model_layout import require_captioner
from sarhpc.stages.inputs.paths import data_root, model_folder
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec, in_branch, pass_all
from sarhpc.stages.splits import publish_split_counts
from sarhpc.stages.tile import most_tiles, shard_pixels
from sarhpc.stages.work.sharded import (
    ShardResult,
    make_missing_shards,
    remove_stale_files,
    sealed_records,
)

if TYPE_CHECKING:
    from sarhpc.captioning.captioners.captioner import Captioner, Drafter

CAPTIONED_BYTES_PER_PX = 7.2

TRAINED = "run:caption-train"
"""Model name of the captioner that this run fine-tunes."""


def caption_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that captions tiles: same shard numbers, same keys, so it can be redone alone."""
    return Stage(
        name="caption",
        needs=CAPTION.needs_in(upstream),
        plan=plan_caption_shards,
        work=lambda work: make_missing_shards(
            make_caption_shard, work, workers=config.cluster.workers
        ),
        finish=lambda work: finish_samples(work, config),
    )


def finish_samples(work: Work, config: RunConfig) -> None:
    """Remove temporary files of killed writers, and publish counts by split."""
    remove_stale_files(data_root(work.run, config) / "samples")
    publish_split_counts(work)


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
        inputs = {"source": run.stored(r.path), "sha256": r.sha256, "split": r.detail["split"]}
        left_out = {"duplicate_of": duplicates[r.shard]} if r.shard in duplicates else {}
        shards.append(ShardTask(r.shard, inputs | left_out | paired.get(r.shard, {})))
    return Plan("caption", tuple(shards), CAPTION.fingerprint(config))


def make_caption_shard(run: RunDir, task: ShardTask) -> ShardResult:
    """Caption and publish the samples of one shard."""
    from sarhpc.captioning.caption import caption_samples
    from sarhpc.shards.writer import write_shard
    from sarhpc.stages.optical import read_tiles

    config = load_run_config(run)
    captioner_config = resolved_captioner(run, config)
    split = task.inputs["split"]
    path = data_root(run, config) / "samples" / split / f"{task.id}.tar"
    duplicates = task.inputs.get("duplicate_of", {})
    tiles = (s for s in read_tiles(run, task.inputs) if s.key not in duplicates)
    captioned = caption_samples(tiles, _captioner(captioner_config), captioner_config)
    samples = counted(captioned.samples, run.stage("caption"), task.id, most_tiles(config))
    summary = write_shard(path, samples)
    rejected = captioned.rejected | ({"duplicate_of": len(duplicates)} if duplicates else {})
    return ShardResult(
        path, summary.samples, summary.bytes, summary.sha256, rejected, {"split": split}
    )


def resolved_captioner(run: RunDir, config: RunConfig) -> CaptionConfig:
    """The caption configuration with the models that it takes as folders."""
    from sarhpc.captioning.captioners.registry import captioner_of

    name, clip = config.caption.model, config.caption.clip
    if name == TRAINED:
        name = str(run.stage("caption-train") / "model")
    elif captioner_of(config.caption).uses_model:
        # The code snapshot of a job holds an embedded model only for these.
        name = model_folder(name)
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


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError unless the captioner exists and its settings fit it and each other."""
    from sarhpc.captioning.captioners.registry import require_consistent
    from sarhpc.captioning.checks import check_policies
    from sarhpc.captioning.template import check_template

    require_consistent(config.caption)
    check_policies(config.caption)
    with in_branch("caption"):
        check_template(config.caption.template)


def models_of(config: RunConfig) -> list[str]:
    """The captioner's model, if it writes, and the one that picks among its drafts."""
    from sarhpc.captioning.captioners.registry import captioner_of

    writer = [config.caption.model] if captioner_of(config.caption).uses_model else []
    clip = [] if config.caption.clip is None else [config.caption.clip.model]
    return writer + clip


def check_inputs(_: RunDir, config: RunConfig) -> None:
    """Raise ConfigError for folders of the captioner and of CLIP that hold no model.

    What a captioner of another package reads is its own.
    """
    from sarhpc.captioning.captioners.generated import BLIP, GIT

    cfg = config.caption
    checks = []
    if cfg.captioner in (BLIP.name, GIT.name) and cfg.model != TRAINED:
        checks.append(lambda: require_captioner("caption.model", cfg.model))
    if cfg.clip is not None:
        clip = cfg.clip.model
        checks.append(lambda: require_captioner("caption.clip.model", clip))
    pass_all(*checks)


CAPTION: StageSpec = StageSpec(
    name="caption",
    help="caption the tiles and write training shards",
    branches=("caption",),
    build=caption_stage,
    needs=("tile", "optical", "caption-train"),
    needs_extra=lambda config: "caption" if models_of(config) else "slurm",
    check=check_settings,
    check_inputs=check_inputs,
    models=models_of,
    sharded=True,
    shard_bytes=lambda config: CAPTIONED_BYTES_PER_PX * shard_pixels(config),
    request="gpu_node",
    computes_on=lambda config: config.caption.device if models_of(config) else "cpu",
)
