"""The report of a run: one self-contained HTML page, and the same numbers as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.figures import distribution_figure, training_figure
from sarhpc.evaluation.gates import GateResult
from sarhpc.evaluation.page import page_environment
from sarhpc.evaluation.page_sections import make_sections
from sarhpc.evaluation.suite import Evaluation
from sarhpc.measures.distances import DISTANCES, Distance
from sarhpc.measures.features import Features, measure
from sarhpc.measures.nulls import NoVerdict

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
        "notes": list(report.notes),
    }


def render(report: Report) -> str:
    """The page as HTML with every picture, style and figure inside."""
    measured = report.features or {name: measure(tiles) for name, tiles in report.tiles.items()}
    # Decibels of codes and of amplitude have no common axis.
    measured = {name: of for name, of in measured.items() if name not in report.other_pixels}
    environment = page_environment()
    return environment.get_template("report.html.j2").render(
        report=report,
        metrics=_metrics(report),
        remarks=[*_remarks(report.evaluation), *_pixel_remarks(report)]
        if report.evaluation
        else [],
        distribution=distribution_figure(measured) if measured else "",
        curves=training_figure(report.training) if report.training else "",
        sections=list(make_sections(report.blocks, report.folder, environment)),
    )


def _metrics(report: Report) -> dict[str, tuple[Distance, str, str]]:
    """The distances that the evaluation has."""
    sets = report.evaluation.sets.values() if report.evaluation else ()
    found = {name for one in sets for name in one.measures}
    return {name: entry for name, entry in DISTANCES.items() if name in found}


def _remarks(evaluation: Evaluation) -> Iterator[str]:
    """Sizes behind the verdicts of each set, and once why there is none."""
    without: dict[str, list[str]] = {}
    for name, of in evaluation.sets.items():
        found = next(iter(of.measures.values()), None)
        if isinstance(found, NoVerdict):
            without.setdefault(found.reason, []).append(name)
        elif found is not None:
            yield (
                f"{name}: {found.tiles} tiles against {found.reference_tiles} of other scenes; "
                f"the null draws {found.groups_drawn} of {found.groups} scenes."
            )
    for reason, names in without.items():
        yield f"No verdict for {', '.join(names)}: {reason}."


def _pixel_remarks(report: Report) -> Iterator[str]:
    """What the rows of sets in other pixels do not compare with."""
    for pixels in dict.fromkeys(report.other_pixels.values()):
        names = ", ".join(name for name, one in report.other_pixels.items() if one == pixels)
        yield (
            f"{names}: {pixels}, held against the real tiles in the same pixels. Their looks, "
            "levels and lines below do not compare with those of the other rows, and they are "
            "not in the figure."
        )
