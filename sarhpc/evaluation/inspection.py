"""The page of `sarhpc inspect`: contents of shards, for review before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sarhpc.evaluation.figures import Figure, set_styles
from sarhpc.evaluation.footprint_map import draw_sites, split_colours
from sarhpc.evaluation.inspection_figures import numbers_figures, radiometry_figures
from sarhpc.evaluation.level_figures import levels_figure
from sarhpc.evaluation.page import page_environment, size
from sarhpc.evaluation.pixel_survey import SIGMA0_EDGES, PixelSurvey
from sarhpc.evaluation.report import StageLine
from sarhpc.evaluation.structure_figures import correlation_figures, spectrum_figure
from sarhpc.evaluation.survey import SetSurvey, shared_ground
from sarhpc.evaluation.tally import Tally
from sarhpc.measures.features import Features


@dataclass(frozen=True)
class Inspection:
    """Everything the page shows."""

    title: str
    looks: Sequence[PixelSurvey]
    stages: Sequence[StageLine] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    """Warnings about the run as a whole; those of a set are in its survey."""


def render_inspection(inspection: Inspection) -> str:
    """The page as HTML with every picture, style and figure inside."""
    measured = {look.survey.name: look.features for look in inspection.looks if look.features}
    sections = [_section(look) for look in inspection.looks]
    warnings = [
        *inspection.warnings,
        *(line for look in inspection.looks for line in _warnings(look)),
    ]
    return (
        page_environment()
        .get_template("inspection.html.j2")
        .render(
            inspection=inspection,
            sections=sections,
            warnings=warnings,
            styles=list(set_styles(list(measured)).values()),
            figures=[
                *(_distributions(measured) if measured else ()),
                *radiometry_figures(inspection.looks, SIGMA0_EDGES),
                *numbers_figures(inspection.looks),
            ],
        )
    )


def _distributions(measured: Mapping[str, Features]) -> list[Figure]:
    styles = set_styles(list(measured))
    return [
        levels_figure(measured, styles),
        *correlation_figures(measured, styles),
        spectrum_figure(measured, styles),
    ]


def _warnings(look: PixelSurvey) -> list[str]:
    survey = look.survey
    lines = [f"{survey.name}: {line}" for line in survey.warnings.lines()]
    pairs = shared_ground(survey.outlines.items)
    if pairs:
        count = "100 pairs or more" if len(pairs) == 100 else f"{len(pairs)} pairs"
        first = ", ".join(" and ".join(pair) for pair in pairs[:3])
        lines.append(f"{survey.name}: tiles of different splits share ground: {count} ({first})")
    top = survey.captions.counts.most_common(1)
    repeated = [(text, n) for text, n in top if n > survey.samples / 2 > 1]
    lines += [f"{survey.name}: one caption on {n} of {survey.samples}: “{t}”" for t, n in repeated]
    return lines


def _section(look: PixelSurvey) -> dict[str, Any]:
    survey = look.survey
    sites, more = draw_sites(survey.outlines.items)
    present = {outline.split for outline in survey.outlines.items}
    colours = split_colours(present)
    return {
        "look": look,
        "survey": survey,
        "facts": dict(_facts(survey, look)),
        "tables": list(_tables(survey)),
        "same": dict(_same_everywhere(survey)),
        "sites": sites,
        "more_sites": more,
        "colours": {name: colours[name] for name in colours if name and name in present},
    }


def _facts(survey: SetSurvey, look: PixelSurvey) -> Iterator[tuple[str, str]]:
    yield "samples", f"{survey.samples:,}"
    yield "shards", f"{survey.shards:,} ({size(survey.bytes)})"
    if survey.synthetic:
        yield "synthetic", _of(survey.synthetic, survey.samples)
    if survey.scenes.total:
        yield "scenes", survey.scenes.distinct
    if survey.synthetic < survey.samples:
        yield "with a place on the Earth", _of(survey.outlines.seen, survey.samples)
    if survey.days:
        yield "acquired", " to ".join(dict.fromkeys(survey.days))
    if survey.captions.total:
        yield "distinct captions", survey.captions.distinct
    for name, pattern in (("incidence_deg", "{:.1f}°"), ("enl", "{:.3g}"), ("words", "{:.1f}")):
        if spread := survey.spreads.get(name):
            yield f"{_LABELS[name]}, mean", pattern.format(spread.mean)
    yield "pixels measured on", f"{look.tiles:,} tiles"


def _of(count: int, whole: int) -> str:
    if count in (0, whole):
        return "all" if count else "none"
    return f"{count:,} of {whole:,}"


_LABELS = {"incidence_deg": "incidence", "enl": "looks", "words": "words per caption"}


@dataclass(frozen=True)
class Bars:
    """A table of counts with bars."""

    title: str
    rows: Sequence[tuple[str, int, float]]
    """Value, count, share of the samples."""


def _tallies(survey: SetSurvey) -> dict[str, Tally]:
    return {
        "class (truth)": survey.classes,
        "activation phrase": survey.tokens,
        **{name.replace("_", " "): tally for name, tally in survey.facts.items()},
        "members": survey.members,
        "scenes": survey.scenes,
        "captions": survey.captions,
    }


def _same_everywhere(survey: SetSurvey) -> Iterator[tuple[str, str]]:
    """What has one value in all samples."""
    for title, tally in _tallies(survey).items():
        if title != "members" and len(tally.counts) == 1 and tally.total == survey.samples:
            [value] = tally.counts
            yield title, value
    whole = sorted(name for name, n in survey.members.counts.items() if n == survey.samples)
    yield "members of every sample", ", ".join(whole)


def _tables(survey: SetSurvey) -> Iterator[Bars]:
    """Counts of whatever differs between samples."""
    for title, tally in _tallies(survey).items():
        rows = [(value, n, n / survey.samples) for value, n in tally.ranked(8)]
        if title == "members":
            rows = [row for row in rows if row[1] < survey.samples]
        told_apart = len(tally.counts) > 1 or tally.total < survey.samples
        if rows and told_apart and (title != "captions" or rows[0][1] > 1):
            yield Bars(title, rows)
