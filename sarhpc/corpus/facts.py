"""What card and metadata of a corpus state beside what its shards hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sarhpc.shards.contract import PixelContract


@dataclass(frozen=True)
class Licence:
    """Licence of something the corpus was made from."""

    of: str
    """Base model or training data."""
    name: str
    url: str | None = None


@dataclass(frozen=True)
class Score:
    """One distance of the corpus to real tiles."""

    measure: str
    raw: float
    against: str
    """How it stands against distances of real tiles to real tiles."""


@dataclass(frozen=True)
class Gate:
    """One bound that the corpus as a whole was held to."""

    text: str
    value: float | None
    bounds: str
    verdict: str


@dataclass(frozen=True)
class ImageGateFacts:
    """The gate that each image was held to, and what came of it."""

    planned: int
    accepted: int
    draws: int
    """Images that were sampled."""
    reasons: Mapping[str, int]
    """Quarantined images by each of their reasons."""
    rate: float
    """Share of real tiles that the limits reject, by all tests together."""
    tiles: int
    """Real tiles that the limits are from."""
    splits: Sequence[str]
    """Splits of these tiles."""
    duplicate_bits: int
    """Bits of 256 in which near duplicates differ at most."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """The limits, as an object of JSON."""
    classes: Mapping[str, Any] | None = None
    """Classes with their limits, the CLIP, and `judged`, the draws whose class was judged; None
    where images of another class were not looked for."""
    counted: str = "images"
    """What is planned and accepted: `images`, or the `layouts` of a sweep."""

    @property
    def quarantined(self) -> int:
        """Images in the quarantine."""
        return self.draws - self.accepted

    def to_json(self) -> dict[str, Any]:
        """Limits and counts as an object of JSON."""
        classes = {} if self.classes is None else {"other_class": dict(self.classes)}
        counted = {} if self.counted == "images" else {"counted": self.counted}
        return {
            **classes,
            **counted,
            "schema": "sarhpc.gated_corpus/1",
            "planned": self.planned,
            "accepted": self.accepted,
            "unmet": self.planned - self.accepted,
            "draws": self.draws,
            "quarantined": self.quarantined,
            "reasons": dict(sorted(self.reasons.items())),
            "splits": list(self.splits),
            "limits": dict(self.limits),
        }


@dataclass(frozen=True)
class CorpusFacts:
    """Names and hashes of the run, its licences, and its scores once there are any."""

    name: str
    model_sha: str
    config_fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings to list: steps, guidance, scheduler and so on."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Images left out, by reason."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """Class of each prompt of which one is known."""
    licences: Sequence[Licence] = ()
    """Those that are known."""
    scores: Sequence[Score] = ()
    """Empty before the corpus was evaluated."""
    gates: Sequence[Gate] = ()
    """Likewise."""
    contract: PixelContract | None = None
    """What a pixel means, where the model says so."""
    image_gate: ImageGateFacts | None = None
    """The gate of single images, if there was one."""


@dataclass(frozen=True)
class ShardFile:
    """A finished shard and its recorded digest."""

    path: Path
    bytes: int
    sha256: str
