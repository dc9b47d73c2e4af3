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


@dataclass(frozen=True)
class ShardFile:
    """A finished shard and its recorded digest."""

    path: Path
    bytes: int
    sha256: str
