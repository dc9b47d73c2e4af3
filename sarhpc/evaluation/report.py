"""The report of a run or of two sets: what its page shows, and the same numbers as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.gates import GateResult
from sarhpc.evaluation.headline import Headline
from sarhpc.evaluation.suite import Evaluation
from sarhpc.measures.features import Features

if TYPE_CHECKING:
    from sarhpc.evaluation.classes import Conformity  # imports torch

REPORT_SCHEMA = "sarhpc.report/2"
"""Version 1 had floors of half sets in `evaluation`, and their ratios."""


@dataclass(frozen=True)
class StageLine:
    """One stage in the report: counts, reject reasons, times."""

    name: str
    shards: int
    samples: int
    rejected: Mapping[str, int]
    seconds: float
    """Worker seconds, summed over shards."""
    attempts: int


@dataclass(frozen=True)
class Picture:
    """One tile with its caption."""

    image: NDArray[np.uint8]
    """As it is shown."""
    text: str
    note: str = ""


@dataclass(frozen=True)
class GridRow:
    """One row of the learning-progress grid: the same prompts and seeds at one step."""

    label: str
    images: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Report:
    """Everything the page shows."""

    name: str
    facts: Mapping[str, str]
    config_yaml: str
    stages: Sequence[StageLine]
    real: Sequence[Picture] = ()
    synthetic: Mapping[str, Sequence[Picture]] = field(default_factory=dict)
    """Set name -> tiles of the same prompts in the same order."""
    evaluation: Evaluation | None = None
    tiles: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """The tiles (N, H, W) behind the evaluation, for the curves; `real` is one of them."""
    features: Mapping[str, Features] = field(default_factory=dict)
    """The same measured already, in the place of `tiles`."""
    other_pixels: Mapping[str, str] = field(default_factory=dict)
    """Set name -> its pixels, where they are others than those that the row `real` is of."""
    gates: Sequence[GateResult] = ()
    examples: Mapping[str, Sequence[Picture]] = field(default_factory=dict)
    """Set name -> some of its tiles, that have nothing to do with those of other sets."""
    conformity: Mapping[str, Conformity] = field(default_factory=dict)
    progress_prompts: Sequence[str] = ()
    progress: Sequence[GridRow] = ()
    training: Sequence[Mapping[str, float]] = ()
    notes: Sequence[str] = ()
    headline: Headline | None = None
    blocks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Result of each further measure, by name; see `page_sections`."""
    folder: Path = Path()
    """Of the evaluation, where further measures left pictures and tables."""


def to_json(report: Report) -> dict[str, Any]:
    """The numbers of the report as plain values, without the pictures."""
    return {
        "schema": REPORT_SCHEMA,
        "name": report.name,
        "facts": dict(report.facts),
        "stages": [asdict(line) for line in report.stages],
        "evaluation": {**report.evaluation.to_json(), **report.blocks}
        if report.evaluation
        else None,
        "gates": [asdict(gate) for gate in report.gates],
        "conformity": {name: asdict(value) for name, value in report.conformity.items()},
        "training": {"rows": len(report.training), "last": dict(report.training[-1])}
        if report.training
        else None,
        "headline": asdict(report.headline) if report.headline else None,
        "notes": list(report.notes),
    }
