"""Checks of the settings of a contrastive fine-tuning."""

from __future__ import annotations

from hpc.errors import ConfigError
from sarhpc.captioning.checks import ON_NONFINITE, SAVED, check_model_shape
from sarhpc.captioning.contrastive.config import ClipTrainConfig

TEXTS = ("txt", "SHORT", "MID", "LONG")
"""Captions of a sample that can be learnt."""


def check_clip_training(cfg: ClipTrainConfig) -> None:
    """Raise ConfigError unless the numbers and names of a fine-tuning are valid.

    Raises:
        ConfigError: names the field, its value and the values that work.
    """
    allowed = {"save_dtype": SAVED, "text": TEXTS, "on_nonfinite": ON_NONFINITE}
    for name, values in allowed.items():
        if getattr(cfg, name) not in values:
            raise ConfigError(f"{name}={getattr(cfg, name)!r}: use one of {', '.join(values)}")
    least = {
        1: (
            "steps",
            "micro_batch",
            "threads",
            "skip_in_a_row",
            "skip_in_all",
            "val_every",
            "log_every",
        ),
        2: ("batch", "val_tiles"),
        0: ("lr", "warmup_steps", "weight_decay", "grad_clip"),
    }
    for low, names in least.items():
        for name in names:
            value = getattr(cfg, name)
            if value is not None and not value >= low:
                raise ConfigError(f"{name}={value}: give at least {low}")
    if not 0 <= cfg.ema_decay < 1:
        raise ConfigError(f"ema_decay={cfg.ema_decay} is outside [0, 1); 0 keeps no average")
    if cfg.judge is not None:
        if cfg.judge.choose not in ("best", "last"):
            raise ConfigError(f"judge.choose={cfg.judge.choose!r}: use one of best, last")
        if cfg.judge.among < 2:
            raise ConfigError(f"judge.among={cfg.judge.among}: give at least 2")
    if cfg.base_model is None:
        check_model_shape(cfg.new)
