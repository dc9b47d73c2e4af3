"""Checks of the training configuration."""

from __future__ import annotations

from hpc.errors import ConfigError
from sarhpc.diffusion.config import ADAPTER_KINDS, LAYERS
from sarhpc.training.config import EngineConfig, JudgeConfig, OffloadConfig, TrainConfig

LEAST_JUDGED = 4
"""Images of a grid from which its distances mean anything."""


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
    _one_of("fit", cfg.fit, (None, "auto", "exact"))
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
    check_checkpoints(
        cfg.keep_last, cfg.checkpoint_every_steps, cfg.checkpoint_every_s, cfg.keep_every_steps
    )


def _check_numbers(cfg: TrainConfig) -> None:
    """Raise ConfigError unless counts are positive and rates are not negative."""
    counts = ("epochs", "global_batch", "micro_batch", "threads", "loader_threads",
              "log_every_steps", "validation_steps")  # fmt: skip
    for name in counts:
        count = getattr(cfg, name)
        if count is not None and count < 1:
            raise ConfigError(f"{name}={count}: give at least 1")
    rates = ("lr_unet", "lr_text_encoder", "lr_text_encoder_2", "warmup_steps", "weight_decay",
             "grad_clip", "noise_offset", "max_steps", "validation_every_steps")  # fmt: skip
    for name in rates:
        value = getattr(cfg, name)
        if value is not None and value < 0:
            raise ConfigError(f"{name}={value}: must be >= 0")
    if len(cfg.betas) != 2 or not all(0 <= beta < 1 for beta in cfg.betas):
        raise ConfigError(f"betas={cfg.betas}: give two numbers from 0 to less than 1")


def check_checkpoints(
    keep_last: int, every_steps: int | None, every_s: float, keep_every_steps: int | None = None
) -> None:
    """Raise ConfigError unless checkpoints can be saved and kept so.

    Raises:
        ConfigError: names the field, its value and the values that work.
    """
    if keep_last < 2:
        raise ConfigError(
            f"keep_last={keep_last} would leave no checkpoint to fall back on when the newest is "
            "damaged; use 2 or more"
        )
    counts = {"checkpoint_every_steps": every_steps, "keep_every_steps": keep_every_steps}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ConfigError(f"{name}={count}: give at least 1, or null")
    if every_s < 0:
        raise ConfigError(f"checkpoint_every_s={every_s}: must be >= 0")


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
