"""Stage `caption-train`: BLIP fine-tuned by all ranks together, with checkpoints to resume from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError, StopRequestedError
from hpc.job.pipeline import Stage, StageProgress, Work
from hpc.memory import gpu_memory_advised
from hpc.observe.state import last_row
from hpc.store.plan import Plan, make_plan
from hpc.store.rundir import RunDir
from hpc.store.tree import digest_tree
from sarhpc.captioning.config import CaptionSetConfig, CaptionTrainConfig
from sarhpc.captioning.contrastive.config import ClipTrainConfig
from sarhpc.stages.caption_judging import (
    HELD_OUT,
    judged_record,
    load_chosen,
    require_held_out_tiles,
)
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.model_layout import require_captioner
from sarhpc.stages.inputs.paths import caption_sets, data_root, model_folder
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec, in_branch
from sarhpc.stages.work import ranks
from sarhpc.stages.work.sharded import ShardResult, manifest_sha, single_shard
from sarhpc.training.judged import best_steps

if TYPE_CHECKING:
    from hpc.job.agreement import RankGroup
    from sarhpc.captioning.tuning.ranks import StopCheck
    from sarhpc.captioning.tuning.task import CaptionTask
    from sarhpc.training.config import LoopConfig
    from sarhpc.training.context import TrainContext


def caption_train_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that fine-tunes BLIP; collective, its progress is the newest checkpoint's step."""
    return Stage(
        name="caption-train",
        needs=CAPTION_TRAIN.needs_in(upstream),
        plan=plan_caption_training,
        work=train_ranks,
        collective=True,
        progress=lambda run: ranks.newest_step(run, "caption-train"),
        live_progress=caption_training_progress,
        progress_times=lambda run: ranks.checkpointed_step_times(run, "caption-train"),
    )


def plan_caption_training(run: RunDir) -> Plan:
    """A single shard that names the tiles it learns from.

    Raises:
        ConfigError: it would learn from the run's own tiles, which get their images later.
        DataError: it would be judged on tiles of which there are none.
    """
    config = load_run_config(run)
    require_images_at_tiling(config)
    require_held_out_tiles(run, config.caption_train)
    return make_plan(
        "caption-train",
        [{"tiles": manifest_sha(run, "tile")}],
        fingerprint=CAPTION_TRAIN.fingerprint(config),
    )


def require_images_at_tiling(config: RunConfig) -> None:
    """Raise ConfigError if it would learn from tiles of the run that get their images later."""
    assert config.caption_train is not None
    if config.optical is not None and not config.caption_train.train:
        raise ConfigError(
            "caption-train on the run's own tiles looks at the images cut with them, not at those "
            "of the stage `optical`: set caption_train.train, or leave one of them out"
        )


def caption_training_progress(run: RunDir) -> StageProgress | None:
    """Steps done and their rate, from the newest row of metrics.jsonl."""
    row = last_row(run.stage("caption-train") / "metrics.jsonl")
    cfg = load_run_config(run).caption_train
    if row is None or cfg is None or "time" not in row:  # rows of earlier versions lack it
        return None
    return ranks.step_progress(run, "caption-train", row, cfg.steps, _progress_note(row))


def _progress_note(row: Mapping[str, Any]) -> str:
    """What a row says of the training, in a few words."""
    if "loss" in row:
        return f"{ranks.loss_note(row)}, {row['samples_per_s']:.3g} images/s"
    if "trouble" in row:
        return ranks.loss_note(row)
    if "val_loss" in row:
        return f"validation loss {row['val_loss']:.4g}"
    return f"BLEU-4 {row['bleu_4']:.3g} {row['event']}" if "bleu_4" in row else str(row["event"])


def train_ranks(work: Work) -> None:
    """Fine-tune BLIP on this rank; rank 0 publishes it and records it.

    Raises:
        StopRequestedError: someone asked to stop; all ranks saved the same step.
    """
    from hpc.cluster.keys import run_key
    from sarhpc.captioning.captioners.pretrained import pick_device
    from sarhpc.training.ranks import join, leave

    cfg = _settings(work.run)
    on_cpu = pick_device(cfg.device) == "cpu"
    key = run_key(work.run.root)
    joined = join(cfg.threads, deterministic=True, seed=cfg.seed, on_cpu=on_cpu, key=key)
    try:
        micro = ranks.frozen_micro_batch(
            work, joined, cfg.micro_batch or cfg.batch, cfg.batch, "caption_train.batch"
        )
        cfg = dataclasses.replace(cfg, micro_batch=micro)
        folder = work.run.stage("caption-train")
        with (
            ranks.train_context(
                work,
                joined,
                keep_last=cfg.keep_last,
                also_keep=lambda: best_steps(folder, cfg.judge),
            ) as ctx,
            gpu_memory_advised(lambda: ranks.memory_advice("caption_train", micro)),
        ):
            _train(work.run, cfg, joined, ctx)
    finally:
        leave()
    if joined.rank == 0:
        target = work.run.stage("caption-train") / "model"
        digest = digest_tree(target)
        single_shard(work, lambda: ShardResult(target, 0, digest.bytes, digest.sha256))


def _settings(run: RunDir) -> CaptionTrainConfig:
    """The fine-tuning with its folders; without sets of its own it learns from this run's tiles."""
    config = load_run_config(run)
    settings = config.caption_train
    assert settings is not None
    if not settings.train:
        from sarhpc.stages.tile import DUPLICATES_FILE

        own = CaptionSetConfig(path=str(data_root(run, config) / "tiles"))
        if config.tile.dedupe:
            own = dataclasses.replace(own, without=str(run.stage("tile") / DUPLICATES_FILE))
        held_out = dataclasses.replace(own, split=HELD_OUT)
        settings = dataclasses.replace(settings, train=[own], val=[held_out])
    if settings.base_model is not None:
        settings = dataclasses.replace(settings, base_model=model_folder(settings.base_model))
    return dataclasses.replace(
        settings, train=caption_sets(settings.train), val=caption_sets(settings.val)
    )


def _train(run: RunDir, cfg: CaptionTrainConfig, joined: RankGroup, ctx: TrainContext) -> None:
    from hpc.job.signatures import RunSignature
    from sarhpc.captioning.tuning.finetune import train_captioner
    from sarhpc.training.trainer import fit

    def _fit(task: CaptionTask) -> int:
        result = fit(loop_config(cfg, joined.world), task, joined, ctx)
        last = ranks.require_finished(run, result)
        return load_chosen(task, cfg, joined, ctx.folder, last, RunSignature(run.root))

    target = run.stage("caption-train") / "model"
    train_captioner(
        cfg, target, ctx.folder, joined, _fit, stop_check(run, ctx), judged_record(ctx.folder)
    )


def stop_check(
    run: RunDir, ctx: TrainContext, during: str = "caption-train stopped while captions were judged"
) -> StopCheck:
    """What ends all ranks if a stop was requested while captions are judged.

    `during` begins its message.
    """

    def check() -> None:
        """Raise StopRequestedError if it was; a save would change nothing meanwhile."""
        reason = ctx.stop.agree()
        if reason is not None and reason.stops:
            raise StopRequestedError(
                f"{during} ({reason.name}); what was learnt is saved, continue with "
                f"`sarhpc resume {run.quoted}`",
                requeue=reason.requeues,
                reason=reason.name,
            )

    return check


def loop_config(cfg: CaptionTrainConfig | ClipTrainConfig, world: int) -> LoopConfig:
    """The trainer's part of a fine-tuning on `world` ranks."""
    from sarhpc.training.config import LoopConfig

    return LoopConfig(
        steps=cfg.steps,
        global_batch=cfg.batch,
        micro_batch=cfg.micro_batch or max(1, cfg.batch // world),
        grad_clip=cfg.grad_clip,
        torch_clips=True,
        seed=cfg.seed,
        ema_decay=cfg.ema_decay or None,
        on_nonfinite=cfg.on_nonfinite,
        skip_in_a_row=cfg.skip_in_a_row,
        skip_in_all=cfg.skip_in_all,
        zero_stage=cfg.zero_stage,
        precision=cfg.precision,
        checkpoint_every_steps=cfg.checkpoint_every_steps,
        checkpoint_every_s=cfg.checkpoint_every_s,
        log_every_steps=cfg.log_every,
        log_last_step=True,
    )


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError unless the captioner can be fine-tuned as configured."""
    from sarhpc.captioning.checks import check_fine_tuning
    from sarhpc.captioning.tuning.published import require_sets
    from sarhpc.training.config_checks import check_checkpoints, check_engine

    require_images_at_tiling(config)
    cfg = config.caption_train
    assert cfg is not None
    require_sets((*cfg.train, *cfg.val))
    with in_branch("caption_train"):
        check_fine_tuning(cfg)
        check_engine(loop_config(cfg, 1))
        check_checkpoints(cfg.keep_last, cfg.checkpoint_every_steps, cfg.checkpoint_every_s)


def check_ranks(config: RunConfig, world: int) -> None:
    """Raise ConfigError unless the batch divides among `world` ranks."""
    from sarhpc.training.schedule import fitting_micro_batch

    assert config.caption_train is not None
    cfg = config.caption_train
    with in_branch("caption_train"):
        fitting_micro_batch(cfg.micro_batch or cfg.batch, cfg.batch, world, "batch")


def models_of(config: RunConfig) -> list[str]:
    """The captioner it starts from, if any."""
    assert config.caption_train is not None
    base = config.caption_train.base_model
    return [] if base is None else [base]


def check_inputs(_: RunDir, config: RunConfig) -> None:
    """Raise ConfigError if the captioner that it starts from is a folder without a model."""
    for name in models_of(config):
        require_captioner("caption_train.base_model", name)


CAPTION_TRAIN: StageSpec = StageSpec(
    name="caption-train",
    help="fine-tune the captioner on optical tiles with reference captions",
    branches=("caption_train",),
    needs_extra=lambda _: "train",
    build=caption_train_stage,
    needs=("tile",),
    enabled=lambda config: config.caption_train is not None,
    check=check_settings,
    check_inputs=check_inputs,
    check_ranks=check_ranks,
    models=models_of,
    request="rank",
    computes_on=lambda config: config.caption_train.device if config.caption_train else "auto",
)
