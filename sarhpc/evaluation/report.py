"""The report of a run: one self-contained HTML page, and the same numbers as JSON."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.gates import GateResult
from sarhpc.evaluation.headline import Headline
from sarhpc.evaluation.page import page_environment, policy, script
from sarhpc.evaluation.page_sections import make_sections
from sarhpc.evaluation.report_context import report_context
from sarhpc.evaluation.suite import Evaluation
from sarhpc.measures.features import Features

if TYPE_CHECKING:
    from sarhpc.evaluation.classes import Conformity  # imports torch

log = logging.getLogger(__name__)

MAX_PAGE_BYTES = 6_000_000
"""Of a page with all its pictures."""
PICTURE_BYTES = 3_600_000
"""Of these, for tiles side by side; the rest is for progress, sections and figures."""
BYTES_PER_PX = 1.3
"""Of a PNG of speckle in base64: it cannot be compressed."""
LEAST_SIDE_PX = 96
"""Of a tile, below which fewer rows are shown instead."""
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


def render(report: Report) -> str:
    """The page as HTML with every picture, style and figure inside; at most `MAX_PAGE_BYTES`.

    Tiles are shown at native resolution, and where all pixels of all tiles would be too many, the
    middle of each. Should sections bring so many pictures that the page is larger still, a warning
    says so.
    """
    rows, side = picture_room(report)
    context = report_context(report, rows)
    for side_px in (side, side * 2 // 3, side // 2, side // 3):
        page = _rendered(report, context, side_px)
        if len(page.encode()) <= MAX_PAGE_BYTES:
            return page
    log.warning("page of %d bytes, more than %d", len(page.encode()), MAX_PAGE_BYTES)
    return page


def picture_room(report: Report) -> tuple[int, int]:
    """Rows of tiles that the page has room for, and pixels on a side of each."""
    groups = report.examples or report.synthetic
    tiles = [one.image for of in groups.values() for one in of]
    if not tiles:
        return 0, LEAST_SIDE_PX
    whole = max(max(image.shape[:2]) for image in tiles)
    beside = len(groups) + bool(report.real and not report.examples)
    most = max(len(of) for of in groups.values())
    room = PICTURE_BYTES / BYTES_PER_PX / beside
    rows = min(most, max(1, int(room / LEAST_SIDE_PX**2)))
    return rows, min(whole, max(LEAST_SIDE_PX, int((room / rows) ** 0.5) // 16 * 16))


def _rendered(report: Report, context: Mapping[str, Any], side_px: int) -> str:
    environment = page_environment(side_px)
    return environment.get_template("report.html.j2").render(
        **context,
        resolution=_resolution(report, side_px),
        row_px=_row_px(report, context, side_px),
        sections=list(make_sections(report.blocks, report.folder, environment, context["judged"])),
        policy=policy(),
        script=script(),
    )


def _row_px(report: Report, context: Mapping[str, Any], side_px: int) -> int:
    """Width of a row of tiles with its frame, px: as many rows as fit stand beside each other."""
    groups = report.examples or report.synthetic
    widths = [one.image.shape[1] for of in groups.values() for one in of]
    shown = min(max(widths, default=0), side_px) * int(context["times"])
    return int(context["row"]) * (shown + 8) + 22


def _resolution(report: Report, side_px: int) -> str:
    """What is shown of tiles, in words."""
    groups = report.examples or report.synthetic
    sizes = {one.image.shape[:2] for of in groups.values() for one in of}
    if not sizes:
        return ""
    rows, columns = max(sizes)
    if max(rows, columns) <= side_px:
        return f"Tiles are shown pixel by pixel, {rows} x {columns} px."
    return (
        f"Of {rows} x {columns} px the middle {min(rows, side_px)} x {min(columns, side_px)} are "
        "shown pixel by pixel, so that the page can be sent by mail."
    )
