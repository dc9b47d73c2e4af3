"""Checks of the settings that all captioners share, and of a fine-tuning."""

from __future__ import annotations

from hpc.errors import ConfigError
from sarhpc.captioning.config import (
    BlipModelConfig,
    CaptionConfig,
    CaptionJudgeConfig,
    CaptionTrainConfig,
)
from sarhpc.captioning.contrastive.config import ClipModelConfig

POLICIES = ("reject", "fallback")
"""What is done with a tile that gets no caption, or a degenerate one."""
SAVED = ("float32", "float16")
"""Number formats a fine-tuned BLIP can be saved in."""
ON_NONFINITE = ("stop", "skip")
"""What a step can do whose loss or gradient is not finite."""

JUDGED_BY = ("loss", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")
"""What can judge a checkpoint on held-out captions."""


def check_policies(cfg: CaptionConfig) -> None:
    """Raise ConfigError unless the policies for tiles without a caption are known ones.

    Raises:
        ConfigError: an unknown policy.
    """
    for name in ("degenerate", "missing_optical"):
        if getattr(cfg, name) not in POLICIES:
            raise ConfigError(f"caption.{name}={getattr(cfg, name)!r}: take reject or fallback.")


def check_fine_tuning(cfg: CaptionTrainConfig) -> None:
    """Raise ConfigError unless the numbers and types of a fine-tuning are valid.

    Raises:
        ConfigError: names the field, its value and the values that work.
    """
    if cfg.save_dtype not in SAVED:
        raise ConfigError(f"save_dtype={cfg.save_dtype!r}: take {' or '.join(SAVED)}")
    counts = ("steps", "batch", "max_tokens", "threads", "val_every", "val_images",
              "eval_beams", "log_every")  # fmt: skip
    for name in counts:
        if getattr(cfg, name) < 1:
            raise ConfigError(f"{name}={getattr(cfg, name)}: give at least 1")
    for name in ("micro_batch", "lr", "warmup_steps", "weight_decay", "grad_clip", "eval_images"):
        value = getattr(cfg, name)
        if value is not None and value < 0:
            raise ConfigError(f"{name}={value}: must be >= 0")
    if cfg.on_nonfinite not in ON_NONFINITE:
        allowed = ", ".join(ON_NONFINITE)
        raise ConfigError(f"on_nonfinite={cfg.on_nonfinite!r}: use one of {allowed}")
    for name in ("skip_in_a_row", "skip_in_all"):
        if getattr(cfg, name) < 1:
            raise ConfigError(f"{name}={getattr(cfg, name)}: allow 1 or more, or on_nonfinite=stop")
    if not 0 <= cfg.ema_decay < 1:
        raise ConfigError(f"ema_decay={cfg.ema_decay} is outside [0, 1); 0 keeps no average")
    if not 0 <= cfg.label_smoothing < 1:
        raise ConfigError(f"label_smoothing={cfg.label_smoothing}: must be in [0, 1)")
    if cfg.judge is not None:
        _check_judge(cfg, cfg.judge)


def _check_judge(cfg: CaptionTrainConfig, judge: CaptionJudgeConfig) -> None:
    """Raise ConfigError unless the judge is a known one and has captions to judge by."""
    for name, allowed in (("choose", ("best", "last")), ("by", JUDGED_BY)):
        value = getattr(judge, name)
        if value not in allowed:
            raise ConfigError(f"judge.{name}={value!r}: use one of {', '.join(allowed)}")
    if judge.images < 1:
        raise ConfigError(f"judge.images={judge.images}: give at least 1")
    if cfg.train and not cfg.val:
        raise ConfigError(
            "judge needs held-out captions: name their sets in val, as those in train, or leave "
            "judge out"
        )


def check_model_shape(new: BlipModelConfig | ClipModelConfig) -> None:
    """Raise ConfigError unless the sizes of a new model fit each other.

    Raises:
        ConfigError: a size is no multiple of its patches or heads.
    """
    pairs = (
        ("image_px", "patch_px"),
        ("vision_width", "vision_heads"),
        ("text_width", "text_heads"),
    )
    for whole, part in pairs:
        if getattr(new, part) < 1 or getattr(new, whole) % getattr(new, part):
            raise ConfigError(
                f"new.{whole}={getattr(new, whole)} is no multiple of "
                f"new.{part}={getattr(new, part)}."
            )
