"""The captioner `clip`: the given phrases that CLIP finds most similar to the image."""

from __future__ import annotations

from hpc.errors import ConfigError
from sarhpc.captioning.captioners.captioner import Drafter
from sarhpc.captioning.captioners.generated import open_scorer
from sarhpc.captioning.captioners.spec import CaptionerSpec
from sarhpc.captioning.config import CaptionConfig, ClipConfig


def open_phrases(cfg: CaptionConfig) -> Drafter:
    """The captioner that selects among `caption.clip.phrases`.

    Raises:
        DataError: the model cannot be loaded.
    """
    from sarhpc.captioning.captioners.picked import PhrasePicker

    clip = cfg.clip or ClipConfig()
    return PhrasePicker(open_scorer(cfg, clip), clip)


def check_phrases(cfg: CaptionConfig) -> None:
    """Raise ConfigError unless phrases, prompts and pattern are consistent."""
    clip = cfg.clip or ClipConfig()
    if not clip.phrases:
        raise ConfigError(
            "captioner=clip needs caption.clip.phrases: list them, such as "
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
            "caption.prompt is for BLIP and GIT; captioner=clip compares with "
            "caption.clip.prompts and fills caption.clip.pattern."
        )


CLIP = CaptionerSpec("clip", open_phrases, check_phrases)
