"""The captioners by the names they have in the configuration."""

from __future__ import annotations

from hpc.errors import ConfigError
from sarhpc.captioning.config import CaptionConfig
from sarhpc.captioning.draft import Captioner, Drafter
from sarhpc.captioning.given import GivenCaptioner
from sarhpc.captioning.truth import TruthCaptioner


def open_captioner(cfg: CaptionConfig) -> Captioner | Drafter:
    """The captioner `cfg` names, loaded and ready; `caption_samples` takes either kind.

    Raises:
        ConfigError: no such captioner.
        DataError: its model cannot be loaded.
    """
    if cfg.captioner == "truth":
        return TruthCaptioner()
    if cfg.captioner == "given":
        return GivenCaptioner()
    if cfg.captioner == "blip":
        # Seconds and many files, which true captions need not wait for.
        from sarhpc.captioning.blip import open_blip_captioner

        return open_blip_captioner(cfg)
    raise ConfigError(
        f"caption.captioner={cfg.captioner!r} is unknown: take `blip`, `truth` or `given`."
    )
