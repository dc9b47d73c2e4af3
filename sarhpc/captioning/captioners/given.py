"""The captioner of samples that came with a text: it keeps that text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from sarhpc.captioning.captioners.captioner import Draft
from sarhpc.captioning.captioners.spec import CaptionerSpec
from sarhpc.shards.sample import Sample

LENGTHS = ("SHORT", "MID", "LONG")

NO_CAPTION = "no_caption"
"""Reject reason of a sample that came without a text."""


class GivenCaptioner:
    """Drafts from the `txt` member of a sample; no image is read."""

    name: ClassVar[str] = "given"
    revision: ClassVar[str] = "2"

    def draft(self, samples: Sequence[Sample]) -> list[Draft]:
        """The text of each sample, `no_caption` where it has none."""
        return [_draft(sample) for sample in samples]


def _draft(sample: Sample) -> Draft:
    text = (sample.caption or "").strip()
    if not text:
        return Draft(reason=NO_CAPTION)
    known = sample.meta.get("caption") if "meta.json" in sample.members else None
    lengths = known if isinstance(known, Mapping) else {}
    if text in lengths.values() and all(isinstance(lengths.get(name), str) for name in LENGTHS):
        return Draft(text, lengths={name: lengths[name] for name in LENGTHS})
    return Draft(text, lengths=dict.fromkeys(LENGTHS, text))


GIVEN = CaptionerSpec("given", lambda cfg: GivenCaptioner())
