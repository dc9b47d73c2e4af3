"""The captioners by their names in the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarhpc.captioning.captioners.captioner import Captioner, Drafter
from sarhpc.captioning.captioners.given import GivenCaptioner
from sarhpc.captioning.captioners.truth import TruthCaptioner
from sarhpc.captioning.choice import require_consistent
from sarhpc.captioning.config import CaptionConfig, ClipConfig

if TYPE_CHECKING:
    from sarhpc.captioning.captioners.clip import ClipScorer
    from sarhpc.captioning.captioners.writer import WritingCaptioner


def open_captioner(cfg: CaptionConfig) -> Captioner | Drafter:
    """The captioner `cfg` names, loaded and ready; `caption_samples` takes either kind.

    Raises:
        ConfigError: no such captioner, or settings that do not fit it.
        DataError: its model cannot be loaded.
    """
    require_consistent(cfg)
    if cfg.captioner == "truth":
        return TruthCaptioner()
    if cfg.captioner == "given":
        return GivenCaptioner()
    if cfg.clip is None:
        return open_writer(cfg)
    # Importing it takes seconds and opens many files, which true captions do not need.
    from sarhpc.captioning.captioners.picked import PhrasePicker, Reranker

    scorer = open_scorer(cfg, cfg.clip)
    if cfg.captioner == "clip":
        return PhrasePicker(scorer, cfg.clip)
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
