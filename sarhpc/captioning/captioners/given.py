"""The captioner of samples that came with a text: it keeps that text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sarhpc.captioning.captioners.captioner import Draft
from sarhpc.captioning.captioners.spec import CaptionerSpec
from sarhpc.shards.sample import Sample

NO_CAPTION = "no_caption"
"""Reject reason of a sample that came without a text."""


class GivenCaptioner:
    """Drafts from the `txt` member of a sample; no image is read."""

    name: ClassVar[str] = "given"
    revision: ClassVar[str] = "1"

    def draft(self, samples: Sequence[Sample]) -> list[Draft]:
        """The text of each sample, `no_caption` where it has none."""
        texts = ((sample.caption or "").strip() for sample in samples)
        return [Draft(text) if text else Draft(reason=NO_CAPTION) for text in texts]


GIVEN = CaptionerSpec("given", lambda cfg: GivenCaptioner())
