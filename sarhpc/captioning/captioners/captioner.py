"""Who writes captions: what the caption stage asks of a captioner, and drafts by optical images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """What a captioner says of one sample: a text with further sentences, or a reason for none."""

    text: str = ""
    details: tuple[str, ...] = ()
    reason: str | None = None
    scores: tuple[tuple[str, float], ...] = ()
    """What the text was picked from with its score, the best first."""


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
    """A captioner that can say several things of an image, and draws them for its tile's key."""

    def propose(
        self, images: list[NDArray[np.uint8]], keys: Sequence[str], count: int
    ) -> list[list[str]]:
        """Up to `count` different captions per image (H, W, 3), one at least."""
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
    """What `draft` says of the optical images (with their keys), `no_optical` without one.

    Raises:
        DataError: an optical image cannot be decoded.
    """
    seen = [sample for sample in samples if "optic.png" in sample.members]
    images = [decode_rgb8(sample.members["optic.png"]) for sample in seen]
    drafts = draft(images, [sample.key for sample in seen]) if images else []
    by_key = dict(zip((sample.key for sample in seen), drafts, strict=True))
    return [by_key.get(sample.key, Draft(reason=NO_OPTICAL)) for sample in samples]
