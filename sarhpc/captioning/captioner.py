"""Who writes captions: the seam between images, models and the caption stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hpc.errors import ConfigError
from sarhpc.captioning.config import CaptionConfig
from sarhpc.shards.images import decode_rgb8
from sarhpc.shards.sample import Sample

NO_OPTICAL = "no_optical"
"""Reject reason of a tile without an optical image for the captioner to look at."""


@dataclass(frozen=True)
class Draft:
    """What a captioner says of one sample: a text with further sentences, or a reason for none."""

    text: str = ""
    details: tuple[str, ...] = ()
    reason: str | None = None


class Captioner(Protocol):
    """Captions of images; the same image always gets the same caption."""

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def revision(self) -> str:
        """Which weights of it."""
        ...

    def caption(self, images: list[NDArray[np.uint8]]) -> list[str]:
        """One caption per image (H, W, 3)."""
        ...


@runtime_checkable
class Drafter(Protocol):
    """Drafts of samples, from whatever members it needs."""

    @property
    def name(self) -> str:
        """Name of the source."""
        ...

    @property
    def revision(self) -> str:
        """Which version of it."""
        ...

    def draft(self, samples: Sequence[Sample]) -> list[Draft]:
        """One draft per sample, in order."""
        ...


@dataclass(frozen=True)
class OpticalDrafter:
    """Drafts by a captioner that looks at the optical tile (`optic.png`)."""

    captioner: Captioner

    @property
    def name(self) -> str:
        """Name of the captioner."""
        return self.captioner.name

    @property
    def revision(self) -> str:
        """Revision of the captioner."""
        return self.captioner.revision

    def draft(self, samples: Sequence[Sample]) -> list[Draft]:
        """Captions of the samples that have an optical image, `no_optical` for the others.

        Raises:
            DataError: an optical image cannot be decoded.
        """
        seen = [sample for sample in samples if "optic.png" in sample.members]
        images = [decode_rgb8(sample.members["optic.png"]) for sample in seen]
        texts = self.captioner.caption(images) if images else []
        by_key = dict(zip((sample.key for sample in seen), texts, strict=True))
        return [
            Draft(by_key[sample.key]) if sample.key in by_key else Draft(reason=NO_OPTICAL)
            for sample in samples
        ]


def open_captioner(cfg: CaptionConfig) -> Captioner | Drafter:
    """The captioner `cfg` names, loaded and ready; `caption_samples` takes either kind.

    Raises:
        ConfigError: no such captioner.
        DataError: its model cannot be loaded.
    """
    if cfg.captioner == "truth":
        from sarhpc.captioning.truth import TruthCaptioner

        return TruthCaptioner()
    if cfg.captioner == "given":
        from sarhpc.captioning.given import GivenCaptioner

        return GivenCaptioner()
    if cfg.captioner == "blip":
        from sarhpc.captioning.blip import open_blip_captioner

        return open_blip_captioner(cfg)
    raise ConfigError(
        f"caption.captioner={cfg.captioner!r} is unknown: take `blip`, `truth` or `given`."
    )
