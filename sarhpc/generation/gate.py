"""The gate of a corpus: each image of a shard is accepted, or quarantined and drawn again.

What becomes of a request depends on its prompt, its seed and the accepted images before it in the
shard, never on batches, threads, workers or restarts.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import ConfigError, DataError
from sarhpc.generation.copies import MEMORISED, CopyGate, PlannedCopies
from sarhpc.generation.finishing import FinishedImage, SampledImage, Verdict
from sarhpc.generation.gate_errors import NothingAcceptedError
from sarhpc.generation.judged_pixels import judged_pixels
from sarhpc.generation.other_classes import CLASS_MARGIN, CLASSES, ClassGate, PlannedClasses
from sarhpc.generation.plan import ImageRequest, redrawn
from sarhpc.measures.gate_limits import GateLimits
from sarhpc.measures.image_gate import BLACK, GateVerdict, ImageGate, Reason
from sarhpc.measures.near_duplicates import ImageCode
from sarhpc.shards.radiometry import Normalisation
from sarhpc.shards.sample import Sample, encode_json

GATE_SCHEMA = "sarhpc.corpus_gate/1"
CLASS_JUDGED = "judged of a class"
"""Entry of `detail` of a record: draws whose class was judged."""
MOST_IN_VAIN = 64
"""Draws of a corpus of which at least one must be accepted, or generation stops."""


@dataclass(frozen=True)
class PlannedGate:
    """The gate as it was planned: the same for every shard of a corpus."""

    limits: GateLimits
    law: Normalisation | None
    """Of the pictures; None where codes are judged as they are."""
    splits: tuple[str, ...]
    """Splits of the real tiles."""
    copies: PlannedCopies | None = None
    """How copies of training tiles are recognised; None where they are not looked for."""
    classes: PlannedClasses | None = None
    """How images of another class are recognised; None where they are not looked for."""

    def to_json(self) -> dict[str, Any]:
        """The gate as an object of JSON."""
        copies = {} if self.copies is None else {MEMORISED: self.copies.to_json()}
        classes = {} if self.classes is None else {CLASSES: self.classes.to_json()}
        return {
            **copies,
            **classes,
            "schema": GATE_SCHEMA,
            "limits": self.limits.to_json(),
            "normalisation": None if self.law is None else self.law.to_json(),
            "splits": list(self.splits),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PlannedGate:
        """The gate that `to_json` wrote.

        Raises:
            DataError: another schema, or damaged.
        """
        try:
            if value["schema"] != GATE_SCHEMA:
                raise DataError(f"a gate has schema {value['schema']!r}, not {GATE_SCHEMA!r}")
            law = value["normalisation"]
            return cls(
                GateLimits.from_json(value["limits"]),
                None if law is None else Normalisation.from_json(law),
                tuple(value["splits"]),
                PlannedCopies.from_json(value[MEMORISED]) if MEMORISED in value else None,
                PlannedClasses.from_json(value[CLASSES]) if CLASSES in value else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"a gate is damaged: {error!r}") from error


class ShardGate:
    """The gate of one shard.

    Args:
        planned: limits and law.
        redraws: how often a request is drawn again.
        quarantine: called with each quarantined image, in order.
        others: draws of the other shards so far, and how many of them were accepted.
        copies: tells copies of training tiles; None does not look for them.
        classes: tells images of another class; None does not look for them.
    """

    def __init__(
        self,
        planned: PlannedGate,
        redraws: int,
        quarantine: Callable[[FinishedImage], None],
        others: Callable[[], tuple[int, int]] = lambda: (0, 0),
        copies: CopyGate | None = None,
        classes: ClassGate | None = None,
    ) -> None:
        self._gate, self._law = ImageGate(planned.limits), planned.law
        self._copies, self._classes = copies, classes
        self._redraws, self._quarantine, self._others = redraws, quarantine, others
        self._last = ""
        self.accepted = self.unmet = self.of_a_class = 0
        self.reasons: Counter[str] = Counter()
        """Quarantined images by each of their reasons."""
        self.draws = 0

    def judge(self, sampled: SampledImage) -> Verdict:
        """The verdict on an image alone; threads call it at the same time.

        Raises:
            ConfigError: the image is smaller than the tiles that the limits are from.
        """
        gray = sampled.image.mean(axis=2)
        finite = bool(np.isfinite(sampled.image).all())
        codes = np.round(np.nan_to_num(gray) * 255).astype(np.uint8)
        pixels = judged_pixels(codes, self._law) if finite else gray
        try:
            found = self._gate.judge_alone(pixels, sampled.image)
        except ValueError as error:
            raise ConfigError(
                f"generate.gate: {error}; generate larger images, or set generate.gate=null in a "
                "new run"
            ) from error
        if finite and (zero := float((codes == 0).mean())) > 0.5:
            found = GateVerdict((Reason(BLACK, f"{zero:.1%} of the pixels are 0"),), found.values)
        return self._verdict(sampled.request, found, pixels, codes)

    def _verdict(
        self,
        request: ImageRequest,
        found: GateVerdict,
        pixels: NDArray[Any],
        codes: NDArray[np.uint8],
    ) -> Verdict:
        values = {name: _rounded(value) for name, value in found.values.items()}
        facts: dict[str, Any] = {"draw": request.draw, "values": values}
        if found.accepted and self._copies is not None:
            facts[MEMORISED], copied = self._copies.find(pixels)
            found = found if copied is None else GateVerdict((copied,), found.values)
        if found.accepted and self._classes is not None:
            judged, shown = self._classes.find(codes, request)
            if judged is not None:
                facts[CLASSES] = {"class": judged.asked, "nearest_other": judged.nearest_other}
                values[CLASS_MARGIN] = _rounded(judged.margin)
            found = found if shown is None else GateVerdict((shown,), found.values)
        if found.accepted:
            code = ImageCode.of(pixels).to_text()
            return Verdict(facts={"gate": {"verdict": "accepted", "code": code, **facts}})
        return self._refusal(request, found.reasons, facts)

    def _refusal(
        self, request: ImageRequest, reasons: tuple[Reason, ...], facts: Mapping[str, Any]
    ) -> Verdict:
        again = redrawn(request) if request.draw < self._redraws else None
        named = [{"name": reason.name, "text": reason.text} for reason in reasons]
        gate = {**facts, "verdict": "quarantined", "reasons": named}
        return Verdict(reasons[0].name.replace(" ", "_"), again, {"gate": gate})

    def admit(self, image: FinishedImage) -> FinishedImage:
        """The image, or refused where it repeats an accepted one before it in the shard."""
        gate = dict(image.verdict.facts["gate"])
        reason = self._gate.admit(ImageCode.from_text(gate["code"]))
        if reason is None:
            self.accepted += 1
            self._count(gate)
            return image
        verdict = self._refusal(image.request, (reason,), gate)
        sample = image.sample and _with_gate(image.sample, verdict.facts["gate"])
        return dataclasses.replace(image, verdict=verdict, sample=sample)

    def refused(self, image: FinishedImage) -> None:
        """Quarantine a refused image.

        Raises:
            NothingAcceptedError: no image was accepted so far, of many.
        """
        self._quarantine(image)
        self._count(image.verdict.facts["gate"])
        self.unmet += image.verdict.again is None
        reasons = image.verdict.facts["gate"]["reasons"]
        self.reasons.update(reason["name"] for reason in reasons)
        self._last = "; ".join(reason["text"] for reason in reasons)
        if self.draws % (MOST_IN_VAIN // 4) == 0:
            self.require_accepted()

    def _count(self, gate: Mapping[str, Any]) -> None:
        self.draws += 1
        self.of_a_class += CLASSES in gate

    def require_accepted(self) -> None:
        """Raise NothingAcceptedError unless an image of the corpus was accepted, or few were drawn.

        Raises:
            NothingAcceptedError: the message has reasons and numbers.
        """
        if self.accepted:
            return
        draws, accepted = self._others()
        draws += self.draws
        if accepted == 0 and draws >= MOST_IN_VAIN:
            limits = self._gate.limits
            raise NothingAcceptedError(
                f"the gate accepts none of {draws} images: {by_reason(self.reasons)} (the last: "
                f"{self._last}), by limits from {limits.tiles} real tiles that reject "
                f"{limits.rate:.2%} of such tiles"
            )

    def detail(self) -> dict[str, str]:
        """What the record of the shard says of its gate."""
        reasons = {f"quarantined {name}": str(n) for name, n in sorted(self.reasons.items())}
        judged = {} if self._classes is None else {CLASS_JUDGED: str(self.of_a_class)}
        return {"draws": str(self.draws), "unmet": str(self.unmet), **judged, **reasons}


def by_reason(counts: Mapping[str, int]) -> str:
    """Counts by reason as text, the most frequent first: `blurred 7, too dark 2`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "none"


def _rounded(value: float) -> float | None:
    """Six digits; None for infinity, which JSON does not have."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _with_gate(sample: Sample, gate: Mapping[str, Any]) -> Sample:
    return sample.with_members(meta__json=encode_json({**sample.meta, "gate": gate}))
