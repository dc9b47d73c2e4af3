"""The captioner interfaces of the caption stage, and drafts from optical images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sarhpc.shards.images import decode_rgb8
from sarhpc.shards.sample import Sample

NO_OPTICAL = "no_optical"
"""Reject reason of a tile without an optical image for the captioner to look at."""


@dataclass(frozen=True)
class Draft:
    """The caption of one sample: a text with further sentences, or the reason why there is none."""

    text: str = ""
    details: tuple[str, ...] = ()
    reason: str | None = None
    scores: tuple[tuple[str, float], ...] = ()
    """The candidates with their scores, best first."""
    lengths: Mapping[str, str] | None = None
    """Of a text that came along: SHORT, MID and LONG as they were, equal where there is one text.
    It stays as it is unless the template asks for a token."""


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
class Proposer(Captioner, Protocol):
    """A captioner that proposes several captions for an image, sampled by its tile's key."""

    def propose(
        self, images: list[NDArray[np.uint8]], keys: Sequence[str], count: int
    ) -> list[list[str]]:
        """Up to `count` different captions per image (H, W, 3), one at least."""
        ...


@runtime_checkable
class Drafter(Protocol):
    """Drafts captions of samples from the members it needs."""

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
    """Drafts captions from the optical tile (`optic.png`)."""

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
        return draft_seen(samples, self._drafts)

    def _drafts(self, images: list[NDArray[np.uint8]], keys: list[str]) -> list[Draft]:
        if isinstance(self.captioner, Proposer):
            proposed = self.captioner.propose(images, keys, 1)
            return [Draft(first) for (first, *_) in proposed]
        return [Draft(text) for text in self.captioner.caption(images)]


def draft_seen(
    samples: Sequence[Sample],
    draft: Callable[[list[NDArray[np.uint8]], list[str]], list[Draft]],
) -> list[Draft]:
    """Drafts of the samples with an optical image, `no_optical` for the others.

    Raises:
        DataError: an optical image cannot be decoded.
    """
    seen = [sample for sample in samples if "optic.png" in sample.members]
    images = [decode_rgb8(sample.members["optic.png"]) for sample in seen]
    drafts = draft(images, [sample.key for sample in seen]) if images else []
    by_key = dict(zip((sample.key for sample in seen), drafts, strict=True))
    return [by_key.get(sample.key, Draft(reason=NO_OPTICAL)) for sample in samples]
