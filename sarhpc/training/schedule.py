"""Lengths and rates of a training run, as pure functions of configuration and step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpc.errors import ConfigError
from sarhpc.diffusion.config import ADAPTER_KINDS, LAYERS
from sarhpc.training.config import EngineConfig, JudgeConfig, LoopConfig, OffloadConfig, TrainConfig

LEAST_JUDGED = 4
"""Images of a grid from which its distances mean anything."""


@dataclass(frozen=True)
class Length:
    """How long a run is. Epochs follow each other without a gap: no sample is left over."""

    samples: int
    global_batch: int
    steps: int
    accumulation: int
    """Forward passes per rank and step."""

    def epoch(self, step: int) -> int:
        """Epochs completed after `step` steps."""
        return step * self.global_batch // self.samples

    def ends_epoch(self, step: int) -> bool:
        """Whether the last of `step` steps completed an epoch."""
        return step > 0 and self.epoch(step) > self.epoch(step - 1)


def length(cfg: TrainConfig, samples: int, world: int) -> Length:
    """Steps and accumulation for `samples` samples on `world` ranks.

    Raises:
        ConfigError: the global batch does not divide among ranks and micro-batches.
    """
    passes = accumulation(cfg.global_batch, cfg.micro_batch, world)
    steps = math.ceil(cfg.epochs * samples / cfg.global_batch)
    if cfg.max_steps is not None:
        steps = min(steps, cfg.max_steps)
    return Length(samples, cfg.global_batch, steps, passes)


def accumulation(
    global_batch: int, micro_batch: int, world: int, name: str = "global_batch"
) -> int:
    """Forward passes per rank and step; `name` is what a message calls the global batch.

    Raises:
        ConfigError: the global batch does not divide among ranks and micro-batches.
    """
    share = micro_batch * world
    if global_batch % share:
        raise ConfigError(
            f"{name}={global_batch} is no multiple of micro_batch x ranks = "
            f"{micro_batch} x {world}; change one of the three"
        )
    return global_batch // share


def check(cfg: TrainConfig) -> None:
    """Raise ConfigError unless every value is valid.

    Raises:
        ConfigError: names the field, its value and the values that work.
    """
    check_engine(cfg)
    _one_of("lr_schedule", cfg.lr_schedule, ("constant", "cosine"))
    _one_of("on_nonfinite", cfg.on_nonfinite, ("stop", "skip"))
    _one_of("prediction_type", cfg.prediction_type, (None, "epsilon", "v_prediction"))
    _one_of("image_member", cfg.image_member, ("sar.png", "optic.png"))
    if cfg.compile and cfg.zero_stage == 3:
        raise ConfigError(
            "compile with zero_stage=3: its weights come and go inside the pass that would be "
            "compiled; use zero_stage=2, with offload if the GPU is too small"
        )
    if cfg.compile and cfg.control is not None:
        raise ConfigError("compile with control: only a U-Net is compiled; leave compile out")
    if cfg.compile and cfg.adapter is not None and cfg.adapter.kind == "dylora":
        raise ConfigError(
            "compile with adapter.kind=dylora: what it computes changes with each batch; leave "
            "compile out"
        )
    if cfg.control is not None:
        _check_control(cfg)
    for name in ("skip_in_a_row", "skip_in_all"):
        if getattr(cfg, name) < 1:
            raise ConfigError(f"{name}={getattr(cfg, name)}: allow 1 or more, or on_nonfinite=stop")
    if not 0 <= cfg.ema_decay < 1:
        raise ConfigError(f"ema_decay={cfg.ema_decay} is outside [0, 1); 0 keeps no average")
    if not 0 <= cfg.caption_dropout <= 1:
        raise ConfigError(f"caption_dropout={cfg.caption_dropout}: a share between 0 and 1")
    if cfg.adapter is not None:
        _one_of("adapter.kind", cfg.adapter.kind, ADAPTER_KINDS)
    _check_numbers(cfg)


def _check_numbers(cfg: TrainConfig) -> None:
    """Raise ConfigError unless counts are positive and rates are not negative."""
    counts = ("epochs", "global_batch", "micro_batch", "keep_last", "threads", "loader_threads",
              "log_every_steps", "validation_steps")  # fmt: skip
    for name in counts:
        if getattr(cfg, name) < 1:
            raise ConfigError(f"{name}={getattr(cfg, name)}: give at least 1")
    rates = ("lr_unet", "lr_text_encoder", "lr_text_encoder_2", "warmup_steps", "weight_decay",
             "grad_clip", "noise_offset", "max_steps")  # fmt: skip
    for name in rates:
        value = getattr(cfg, name)
        if value is not None and value < 0:
            raise ConfigError(f"{name}={value}: must be >= 0")


def check_engine(cfg: EngineConfig) -> None:
    """Raise ConfigError unless the engine supports the options.

    Raises:
        ConfigError: names the field, its value and the values that work.
    """
    _one_of("zero_stage", cfg.zero_stage, (0, 1, 2, 3))
    _one_of("precision", cfg.precision, ("fp32", "bf16"))
    if cfg.zero_stage == 0 and cfg.precision == "bf16":
        raise ConfigError(
            "zero_stage=0 with precision=bf16 would train without fp32 master weights; "
            "use zero_stage=1, which costs no more"
        )
    if cfg.offload is not None:
        _check_offload(cfg, cfg.offload)


def check_judge(cfg: TrainConfig, judge: JudgeConfig) -> None:
    """Raise ConfigError unless validation makes enough radar images to be judged."""
    _one_of("judge.choose", judge.choose, ("best", "last"))
    if cfg.image_member != "sar.png":
        raise ConfigError(f"judge measures speckle, and image_member={cfg.image_member} has none")
    images = len(cfg.validation_prompts) * len(cfg.validation_seeds)
    if images < LEAST_JUDGED or cfg.validation_every_steps == 0:
        raise ConfigError(
            f"judge compares the images of a grid with real tiles, and there are {images} of them; "
            f"give {LEAST_JUDGED} or more by validation_prompts times validation_seeds, and do not "
            "set validation_every_steps=0"
        )


def _check_offload(cfg: EngineConfig, offload: OffloadConfig) -> None:
    """Raise ConfigError unless DeepSpeed can offload so, and restore it for a checkpoint."""
    if offload.optimizer == "nvme":
        raise ConfigError(
            "offload.optimizer=nvme: averaged weights and checkpoints are read off the fp32 "
            "masters, which would be on the disk; use cpu"
        )
    _one_of("offload.optimizer", offload.optimizer, ("none", "cpu"))
    _one_of("offload.parameters", offload.parameters, ("none", "cpu", "nvme"))
    if offload.optimizer != "none" and cfg.zero_stage == 0:
        raise ConfigError("offload.optimizer=cpu with zero_stage=0, which shards none; use 1 to 3")
    if offload.parameters != "none" and cfg.zero_stage != 3:
        raise ConfigError(
            f"offload.parameters={offload.parameters} with zero_stage={cfg.zero_stage}, which "
            "keeps weights whole on each GPU; use zero_stage=3"
        )
    if (offload.parameters == "nvme") != (offload.nvme_path is not None):
        raise ConfigError(
            f"offload.parameters={offload.parameters} with offload.nvme_path={offload.nvme_path}: "
            "a folder on a disk of the node goes with nvme and with nothing else"
        )


def _check_control(cfg: TrainConfig) -> None:
    """Raise ConfigError unless the ControlNet is trained alone."""
    assert cfg.control is not None
    _one_of("control.layer", cfg.control.layer, tuple(LAYERS))
    others = ("adapter", "token", "prior")
    given = [name for name in others if getattr(cfg, name) is not None]
    if given:
        raise ConfigError(
            f"control with {' and '.join(given)}: a ControlNet is trained alone on a frozen "
            "model; train one after the other, each from the export of the first"
        )


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}={value!r}: use one of {', '.join(map(str, allowed))}")


def rate_scale(cfg: TrainConfig, step: int, steps: int) -> float:
    """Factor on both learning rates at `step` (from 0) of `steps`."""
    if step < cfg.warmup_steps:
        return (step + 1) / cfg.warmup_steps
    if cfg.lr_schedule == "constant":
        return 1.0
    done = (step - cfg.warmup_steps) / max(1, steps - cfg.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def ema_decay(cfg: TrainConfig | LoopConfig, step: int) -> float:
    """Decay of the average at `step` (from 0): a young average follows quickly."""
    return min(cfg.ema_decay or 0.0, (1 + step) / (10 + step))
