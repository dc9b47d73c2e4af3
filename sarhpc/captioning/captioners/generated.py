"""The captioners `blip` and `git`: models that generate text, alone or with CLIP to select."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from sarhpc.captioning.captioners.captioner import Captioner, Drafter
from sarhpc.captioning.captioners.spec import CaptionerSpec
from sarhpc.captioning.config import BLIP_MODEL, CaptionConfig, ClipConfig

if TYPE_CHECKING:
    from sarhpc.captioning.captioners.clip import ClipScorer
    from sarhpc.captioning.captioners.writer import WritingCaptioner


def open_generated(cfg: CaptionConfig) -> Captioner | Drafter:
    """The model's captions, or the one of several that CLIP finds most similar to the image.

    Raises:
        DataError: a model cannot be loaded.
    """
    if cfg.clip is None:
        return open_writer(cfg)
    # Importing it takes seconds and opens many files, which true captions do not need.
    from sarhpc.captioning.captioners.picked import Reranker

    scorer = open_scorer(cfg, cfg.clip)
    return Reranker(open_writer(cfg), scorer, cfg)


def open_writer(cfg: CaptionConfig) -> WritingCaptioner:
    """The BLIP or GIT `cfg` describes, from its folder.

    Raises:
        ConfigError: an unknown way of decoding.
        DataError: the model cannot be loaded.
    """
    from sarhpc.captioning.captioners.blip import load_blip
    from sarhpc.captioning.captioners.git import load_git
    from sarhpc.captioning.captioners.pretrained import model_name, model_revision, pick_device
    from sarhpc.captioning.captioners.writer import WritingCaptioner

    load = load_git if cfg.captioner == "git" else load_blip
    model = load(cfg.model, pick_device(cfg.device), cfg.dtype)
    return WritingCaptioner(
        model,
        name=model_name(cfg.model),
        revision=model_revision(cfg.model, model.model),
        batch=cfg.batch,
        max_tokens=cfg.max_tokens,
        decoding=cfg.decoding,
        beams=cfg.beams,
        top_p=cfg.top_p,
        temperature=cfg.temperature,
        seed=cfg.seed,
        threads=cfg.threads,
        prompt=cfg.prompt,
    )


def open_scorer(cfg: CaptionConfig, clip: ClipConfig) -> ClipScorer:
    """The CLIP that `clip` names, on the device and in the batches of `cfg`.

    Raises:
        DataError: the model cannot be loaded.
    """
    from sarhpc.captioning.captioners.clip import ClipScorer, load_clip
    from sarhpc.captioning.captioners.pretrained import model_name, model_revision, pick_device

    model = load_clip(clip.model, pick_device(cfg.device), cfg.dtype)
    return ClipScorer(
        model,
        name=model_name(clip.model),
        revision=model_revision(clip.model, model.model),
        batch=cfg.batch,
        threads=cfg.threads,
    )


def check_generated(cfg: CaptionConfig) -> None:
    """Raise ConfigError unless decoding, model and selection by CLIP are consistent."""
    if cfg.decoding not in ("beam", "nucleus"):
        raise ConfigError(f"caption.decoding={cfg.decoding!r}: take `beam` or `nucleus`.")
    if cfg.captioner == "git" and cfg.model in (BLIP_MODEL, "run:caption-train"):
        raise ConfigError(
            f"caption.captioner=git, and caption.model={cfg.model} is a BLIP: name the folder of "
            "a GIT."
        )
    if cfg.clip is not None:
        _check_candidates(cfg, cfg.clip)


def _check_candidates(cfg: CaptionConfig, clip: ClipConfig) -> None:
    if clip.phrases:
        raise ConfigError(
            f"caption.clip.phrases are the captions of captioner=clip; captioner={cfg.captioner} "
            "generates its own, among which CLIP selects: leave out the phrases."
        )
    if clip.candidates < 2:
        raise ConfigError(
            f"caption.clip.candidates={clip.candidates} leaves nothing to select from: take 2 "
            "at least, or leave out caption.clip."
        )
    if cfg.decoding == "beam" and clip.candidates > cfg.beams:
        raise ConfigError(
            f"caption.clip.candidates={clip.candidates} of caption.beams={cfg.beams} beams: "
            "raise the beams, or take decoding=nucleus."
        )


BLIP = CaptionerSpec("blip", open_generated, check_generated, uses_model=True)
GIT = CaptionerSpec("git", open_generated, check_generated, uses_model=True)
