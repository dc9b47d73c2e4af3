"""The captioner of the procedural archive: the known truth of a tile, verbatim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sarhpc.captioning.captioners.captioner import Draft
from sarhpc.captioning.captioners.spec import CaptionerSpec
from sarhpc.shards.sample import Sample

NO_TRUTH = "no_truth"
"""Reject reason of a tile whose metadata carry no true caption."""


class TruthCaptioner:
    """Drafts from `truth` in a sample's metadata; no image is read."""

    name: ClassVar[str] = "truth"
    revision: ClassVar[str] = "1"

    def draft(self, samples: Sequence[Sample]) -> list[Draft]:
        """The true caption of each sample with its relations, `no_truth` where there is none."""
        return [_draft(sample) for sample in samples]


def _draft(sample: Sample) -> Draft:
    truth = sample.meta.get("truth")
    if not truth or not truth.get("caption"):
        return Draft(reason=NO_TRUTH)
    return Draft(truth["caption"], tuple(truth.get("relations") or ()))


TRUTH = CaptionerSpec("truth", lambda cfg: TruthCaptioner())
