"""The captioner a configuration selects, and whether its settings are consistent."""

from __future__ import annotations

from hpc.errors import ConfigError
from sarhpc.captioning.config import BLIP_MODEL, CaptionConfig, CaptionTrainConfig, ClipConfig

WRITING = ("blip", "git")
"""Captioners that generate text token by token."""
CAPTIONERS = (*WRITING, "clip", "truth", "given")
POLICIES = ("reject", "fallback")
"""What is done with a tile that gets no caption, or a degenerate one."""
SAVED = ("float32", "float16")
"""Number formats a fine-tuned BLIP can be saved in."""
_DTYPES = (None, "float32", "float16", "bfloat16")


def require_consistent(cfg: CaptionConfig) -> None:
    """Raise ConfigError unless the captioner of `cfg` exists and its settings are consistent.

    Raises:
        ConfigError: they are not; names the setting and the accepted values.
    """
    if cfg.captioner not in CAPTIONERS:
        raise ConfigError(
            f"caption.captioner={cfg.captioner!r} is unknown: take one of {', '.join(CAPTIONERS)}."
        )
    if cfg.dtype not in _DTYPES:
        raise ConfigError(f"caption.dtype={cfg.dtype!r}: take float32, float16, bfloat16 or null.")
    if cfg.captioner in WRITING:
        _check_writing(cfg)
    elif cfg.captioner == "clip":
        _check_phrases(cfg)
    elif cfg.clip is not None:
        raise ConfigError(
            f"caption.clip selects captions of an image, and captioner={cfg.captioner} looks at "
            "none: take captioner=blip, git or clip, or leave out caption.clip."
        )


def _check_writing(cfg: CaptionConfig) -> None:
    if cfg.decoding not in ("beam", "nucleus"):
        raise ConfigError(f"caption.decoding={cfg.decoding!r}: take `beam` or `nucleus`.")
    if cfg.captioner == "git" and cfg.model in (BLIP_MODEL, "run:caption-train"):
        raise ConfigError(
            f"caption.captioner=git, and caption.model={cfg.model} is a BLIP: name the folder of "
            "a GIT."
        )
    if cfg.clip is None:
        return
    if cfg.clip.phrases:
        raise ConfigError(
            f"caption.clip.phrases are what captioner=clip says; captioner={cfg.captioner} writes "
            "its own captions, among which CLIP picks: leave out the phrases."
        )
    if cfg.clip.candidates < 2:
        raise ConfigError(
            f"caption.clip.candidates={cfg.clip.candidates} leaves nothing to pick from: take 2 "
            "at least, or leave out caption.clip."
        )
    if cfg.decoding == "beam" and cfg.clip.candidates > cfg.beams:
        raise ConfigError(
            f"caption.clip.candidates={cfg.clip.candidates} of caption.beams={cfg.beams} beams: "
            "raise the beams, or take decoding=nucleus."
        )


def _check_phrases(cfg: CaptionConfig) -> None:
    clip = cfg.clip or ClipConfig()
    if not clip.phrases:
        raise ConfigError(
            "captioner=clip says nothing but caption.clip.phrases: list them, such as "
            "'caption.clip.phrases=[dense forest, a river, ploughed fields]'."
        )
    if len(set(clip.phrases)) < len(clip.phrases) or not all(map(str.strip, clip.phrases)):
        raise ConfigError("caption.clip.phrases has a phrase twice, or an empty one.")
    if not clip.prompts or any("{phrase}" not in prompt for prompt in clip.prompts):
        raise ConfigError("caption.clip.prompts: one at least, each with {phrase} in it.")
    if "{phrases}" not in clip.pattern:
        raise ConfigError(f"caption.clip.pattern={clip.pattern!r} has no place for {{phrases}}.")
    if clip.keep < 1 or not 0 <= clip.min_share <= 1:
        raise ConfigError(
            f"caption.clip.keep={clip.keep} must be 1 at least, and "
            f"caption.clip.min_share={clip.min_share} a share between 0 and 1."
        )
    if cfg.prompt:
        raise ConfigError(
            "caption.prompt opens what BLIP and GIT write; captioner=clip compares with "
            "caption.clip.prompts and says caption.clip.pattern."
        )


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
    counts = ("steps", "batch", "max_tokens", "threads", "keep_last", "val_every", "val_images",
              "eval_beams", "log_every")  # fmt: skip
    for name in counts:
        if getattr(cfg, name) < 1:
            raise ConfigError(f"{name}={getattr(cfg, name)}: give at least 1")
    for name in ("micro_batch", "lr", "warmup_steps", "weight_decay", "grad_clip", "eval_images"):
        value = getattr(cfg, name)
        if value is not None and value < 0:
            raise ConfigError(f"{name}={value}: must be >= 0")
    if not 0 <= cfg.label_smoothing < 1:
        raise ConfigError(f"label_smoothing={cfg.label_smoothing}: must be in [0, 1)")
