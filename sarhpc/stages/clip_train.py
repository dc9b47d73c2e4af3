"""Stage `clip-train`: CLIP fine-tuned on captioned radar tiles by all ranks together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError, DataError
from hpc.job.pipeline import Stage, StageProgress, Work
from hpc.memory import gpu_memory_advised
from hpc.observe.state import last_row
from hpc.store.plan import Plan, make_plan
from hpc.store.rundir import RunDir
from hpc.store.tree import digest_tree
from sarhpc.captioning.contrastive.config import ClipTrainConfig
from sarhpc.stages.caption_judging import judged_record, load_chosen
from sarhpc.stages.caption_train import loop_config, stop_check
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.azimuth import require_flippable, require_known_axis
from sarhpc.stages.inputs.model_layout import require_captioner
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.inputs.prompts import TRAIN_SPLITS, sample_shards
from sarhpc.stages.judging import samples_by_split
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec, in_branch
from sarhpc.stages.work import ranks
from sarhpc.stages.work.sharded import ShardResult, manifest_sha, single_shard
from sarhpc.training.judged import best_steps

if TYPE_CHECKING:
    from hpc.job.agreement import RankGroup
    from sarhpc.captioning.captioners.clip import Clip
    from sarhpc.captioning.contrastive.task import ClipTask
    from sarhpc.captioning.contrastive.tiles import CaptionedTiles
    from sarhpc.training.context import TrainContext

NAME = "clip-train"
HELD_OUT = ["val"]
"""Splits that validate it. `test` is left for those who measure the published model."""
TOKENIZER = "tokenizer"
"""Folder of the tokenizer of a new model, in that of the stage."""


def clip_train_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that fine-tunes CLIP; collective, its progress is the newest checkpoint's step."""
    return Stage(
        name=NAME,
        needs=CLIP_TRAIN.needs_in(upstream),
        plan=plan_clip_training,
        work=train_ranks,
        collective=True,
        progress=lambda run: ranks.newest_step(run, NAME),
        live_progress=clip_training_progress,
        progress_times=lambda run: ranks.checkpointed_step_times(run, NAME),
    )


def plan_clip_training(run: RunDir) -> Plan:
    """A single shard that names the captioned tiles it learns from.

    Raises:
        DataError: there are no captioned tiles to learn from, or none to judge by.
    """
    config = load_run_config(run)
    cfg = config.clip_train
    assert cfg is not None
    counts = samples_by_split(run, "caption")
    learnt = sum(counts.get(split, 0) for split in TRAIN_SPLITS)
    if learnt < 2:
        raise DataError(
            f"clip-train needs captioned tiles of split {', '.join(TRAIN_SPLITS)}; there are "
            f"{counts}. Start a new run with other scenes or fractions (tile.split.fractions)"
        )
    if cfg.judge is not None and not sum(counts.get(split, 0) for split in HELD_OUT):
        raise DataError(
            f"clip_train.judge needs tiles of split {', '.join(HELD_OUT)}; there are {counts}. "
            "Start a new run with other fractions (tile.split.fractions), or leave "
            "clip_train.judge out"
        )
    if cfg.azimuth_flip:
        require_flippable(run, "clip_train.azimuth_flip")
    inputs = {"data": manifest_sha(run, "caption"), "samples": learnt}
    return make_plan(NAME, [inputs], fingerprint=CLIP_TRAIN.fingerprint(config))


def clip_training_progress(run: RunDir) -> StageProgress | None:
    """Steps done and their rate, from the newest row of metrics.jsonl."""
    row = last_row(run.stage(NAME) / "metrics.jsonl")
    cfg = load_run_config(run).clip_train
    if row is None or cfg is None:
        return None
    return ranks.step_progress(run, NAME, row, cfg.steps, _progress_note(row))


def _progress_note(row: Mapping[str, Any]) -> str:
    """What a row says of the training, in a few words."""
    if "loss" in row:
        return f"{ranks.loss_note(row)}, {row['samples_per_s']:.3g} tiles/s"
    if "trouble" in row:
        return ranks.loss_note(row)
    return f"R@1 {row['val_r1']:.3g}" if "val_r1" in row else str(row["event"])


def train_ranks(work: Work) -> None:
    """Fine-tune CLIP on this rank; rank 0 publishes it and records it.

    Raises:
        StopRequestedError: a stop was requested; all ranks saved the same step.
        GpuMemoryError: it does not fit on a GPU.
    """
    from hpc.cluster.keys import run_key
    from sarhpc.captioning.captioners.pretrained import pick_device
    from sarhpc.training.ranks import join, leave

    cfg = load_run_config(work.run).clip_train
    assert cfg is not None
    on_cpu = pick_device(cfg.device) == "cpu"
    key = run_key(work.run.root)
    joined = join(cfg.threads, deterministic=True, seed=cfg.seed, on_cpu=on_cpu, key=key)
    folder = work.run.stage(NAME)
    try:
        most = cfg.micro_batch or cfg.batch
        micro = ranks.frozen_micro_batch(work, joined, most, cfg.batch, "clip_train.batch")
        cfg = dataclasses.replace(cfg, micro_batch=micro)
        judge = cfg.judge
        with (
            ranks.train_context(
                work,
                joined,
                keep_last=cfg.keep_last,
                also_keep=lambda: best_steps(folder, judge),
            ) as ctx,
            gpu_memory_advised(lambda: ranks.memory_advice("clip_train", micro)),
        ):
            _train(work.run, cfg, joined, ctx)
    finally:
        leave()
    if joined.rank == 0:
        target = folder / "model"
        digest = digest_tree(target)
        single_shard(work, lambda: ShardResult(target, 0, digest.bytes, digest.sha256))


def _train(run: RunDir, cfg: ClipTrainConfig, joined: RankGroup, ctx: TrainContext) -> None:
    from hpc.job.signatures import RunSignature
    from sarhpc.captioning.contrastive.finetune import train_clip
    from sarhpc.captioning.contrastive.tiles import CaptionedTiles
    from sarhpc.shards.samples import ShardedSamples
    from sarhpc.shards.tile_contract import contract_of_shards
    from sarhpc.training.trainer import fit

    shards = sample_shards(run, TRAIN_SPLITS)
    train, val = (
        CaptionedTiles(ShardedSamples(paths), cfg.text)
        for paths in (shards, sample_shards(run, HELD_OUT))
    )

    def fitted(task: ClipTask) -> int:
        """Step whose weights the task holds after training: the chosen one."""
        result = fit(loop_config(cfg, joined.world), task, joined, ctx)
        last = ranks.require_finished(run, result)
        return load_chosen(task, cfg, joined, ctx.folder, last, RunSignature(run.root))

    train_clip(
        open_clip(cfg, train, ctx.folder, joined),
        train,
        val,
        cfg,
        ctx.folder / "model",
        joined,
        fitted,
        stop_check(run, ctx, "clip-train stopped while the model was measured"),
        judged_record(ctx.folder),
        contract_of_shards(shards) if joined.rank == 0 else None,
    )


def open_clip(cfg: ClipTrainConfig, train: CaptionedTiles, folder: Path, joined: RankGroup) -> Clip:
    """The CLIP that a fine-tuning starts from, in float32 on the device of this rank. Collective.

    The tokenizer of a new one is trained on the captions, once, and kept in `folder`.

    Raises:
        DataError: the model cannot be loaded, or there are no words to train a tokenizer on.
    """
    from sarhpc.captioning.captioners.clip import load_clip
    from sarhpc.captioning.contrastive.build import new_clip
    from sarhpc.diffusion.tokenizer import load_clip_tokenizer, train_clip_tokenizer

    if cfg.base_model is not None:
        return load_clip(model_folder(cfg.base_model), str(joined.device), "float32")
    place = folder / TOKENIZER
    if joined.rank == 0 and not place.is_dir():
        positions = cfg.new.max_positions
        train_clip_tokenizer(train.captions(), cfg.new.vocabulary, place, max_length=positions)
    joined.barrier()
    clip = new_clip(cfg.new, load_clip_tokenizer(place), cfg.seed)
    clip.model.to(joined.device)
    return clip


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError unless CLIP can be fine-tuned as configured."""
    from sarhpc.captioning.contrastive.checks import check_clip_training
    from sarhpc.training.config_checks import check_checkpoints, check_engine

    cfg = config.clip_train
    assert cfg is not None
    if cfg.azimuth_flip:
        require_known_axis(config, "clip_train.azimuth_flip")
    with in_branch("clip_train"):
        check_clip_training(cfg)
        check_engine(loop_config(cfg, 1))
        check_checkpoints(cfg.keep_last, cfg.checkpoint_every_steps, cfg.checkpoint_every_s)


def check_inputs(_: RunDir, config: RunConfig) -> None:
    """Raise ConfigError if the model to start from is a folder that is no CLIP."""
    from hpc.documents import read_json

    assert config.clip_train is not None
    base = config.clip_train.base_model
    folder = None if base is None else Path(model_folder(base))
    if base is None or folder is None or not folder.is_dir():
        return  # a name in the cache of the hub, or missing, which the check of all models reports
    require_captioner("clip_train.base_model", base)
    try:
        kind = read_json(folder / "config.json").get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"clip_train.base_model={base}: {folder / 'config.json'} cannot be read ({error}); "
            "give a folder of a CLIP (transformers), or null for a new one"
        ) from error
    if kind != "clip":
        raise ConfigError(
            f"clip_train.base_model={base} is a model of type {kind!r} and no CLIP; give a folder "
            "of a CLIP (transformers), or null for a new one"
        )


def check_ranks(config: RunConfig, world: int) -> None:
    """Raise ConfigError unless the batch divides among `world` ranks."""
    from sarhpc.training.schedule import fitting_micro_batch

    cfg = config.clip_train
    assert cfg is not None
    with in_branch("clip_train"):
        fitting_micro_batch(cfg.micro_batch or cfg.batch, cfg.batch, world, "batch")


def models_of(config: RunConfig) -> list[str]:
    """The CLIP it starts from, if any."""
    assert config.clip_train is not None
    base = config.clip_train.base_model
    return [] if base is None else [base]


CLIP_TRAIN: StageSpec = StageSpec(
    name=NAME,
    help="fine-tune CLIP on captioned radar tiles, for the evaluation",
    branches=("clip_train",),
    needs_extra=lambda _: "train",
    build=clip_train_stage,
    needs=("caption",),
    enabled=lambda config: config.clip_train is not None,
    check=check_settings,
    check_inputs=check_inputs,
    check_ranks=check_ranks,
    models=models_of,
    request="rank",
    computes_on=lambda config: config.clip_train.device if config.clip_train else "auto",
)
