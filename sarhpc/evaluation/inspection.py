"""The page of `sarhpc inspect`: contents of shards, for review before training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.evaluation.figures import distribution_figure
from sarhpc.evaluation.footprint_map import draw_sites, split_colours
from sarhpc.evaluation.inspection_figures import numbers_figure, radiometry_figure
from sarhpc.evaluation.page import colour_thumbnail, page_environment, radar_thumbnail, size
from sarhpc.evaluation.report import StageLine
from sarhpc.evaluation.survey import SampleRef, SetSurvey, shared_ground
from sarhpc.evaluation.tally import Tally, evenly
from sarhpc.measures.features import Features, measure
from sarhpc.shards.images import decode_array, decode_gray8, decode_rgb8
from sarhpc.shards.sample import Sample
from sarhpc.shards.schema import validate_sample

SIGMA0_EDGES = np.linspace(-60.0, 30.0, 181)
"""Edges of the histogram of sigma0, dB."""

LEAST_PX = 32
"""Tiles below this size are shown, but speckle is not measured in them."""

MIDDLE_PX = 256
"""Side of the centre crop in which speckle is measured, pixels; bounds the time per tile."""

DecodeMaster = Callable[[NDArray[np.uint16], Mapping[str, Any]], NDArray[np.floating[Any]]]
"""Amplitude of the 16-bit master, by the metadata of its sample."""


@dataclass
class PixelSurvey:
    """What was measured on the pixels of the selected samples."""

    survey: SetSurvey
    features: Features | None = None
    sigma0: NDArray[np.int64] = field(default_factory=lambda: np.zeros(180, np.int64))
    """Pixels per bin of sigma0, from the masters of calibrated tiles."""
    tiles: int = 0
    gallery: list[TileCard] = field(default_factory=list)


@dataclass(frozen=True)
class TileCard:
    """One tile of the gallery."""

    radar: NDArray[np.uint8]
    optical: NDArray[np.uint8] | None
    caption: str
    key: str
    facts: Sequence[str]


@dataclass(frozen=True)
class Inspection:
    """Everything the page shows."""

    title: str
    looks: Sequence[PixelSurvey]
    stages: Sequence[StageLine] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    """Warnings about the run as a whole; those of a set are in its survey."""


def survey_pixels(survey: SetSurvey, decode_master: DecodeMaster, gallery: int = 24) -> PixelSurvey:
    """The pixel survey of the selected samples, read one at a time."""
    look = PixelSurvey(survey)
    places = evenly(survey.picked.items, survey.picked.most)
    shown = {place.key for place in evenly(places, gallery)}
    tiles = _measurable(look, places, shown, decode_master)
    first = next(tiles, None)
    if first is not None:
        look.features = measure(itertools.chain([first], tiles))
    return look


def _measurable(
    look: PixelSurvey, places: Sequence[SampleRef], shown: set[str], decode_master: DecodeMaster
) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles that are large enough to measure; count everything else."""
    warnings = look.survey.warnings
    for place in places:
        try:
            sample = place.read()
            tile = decode_gray8(sample.members["sar.png"])
        except (DataError, KeyError) as error:
            why = "no sar.png" if isinstance(error, KeyError) else str(error)
            warnings.add("sample without a readable picture", f"{place.key} ({why})")
            continue
        try:
            validate_sample(sample)
        except DataError as error:
            warnings.add("sample breaks the schema", str(error))
        look.tiles += 1
        if int(tile.min()) == int(tile.max()):
            warnings.add("tile of one value", place.key)
        _count_sigma0(look, sample, decode_master)
        if place.key in shown:
            look.gallery.append(_card(sample, tile))
        if min(tile.shape) >= LEAST_PX:
            yield _middle(tile)


def _middle(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    row, col = (max((side - MIDDLE_PX) // 2, 0) for side in tile.shape)
    return tile[row : row + MIDDLE_PX, col : col + MIDDLE_PX]


def _count_sigma0(look: PixelSurvey, sample: Sample, decode_master: DecodeMaster) -> None:
    if "sar16.npy" not in sample.members or "meta.json" not in sample.members:
        return
    meta = sample.meta
    if meta.get("calibration") == "sigma0" and "master_scale" in meta:
        amplitude = decode_master(decode_array(sample.members["sar16.npy"]), meta)
        levels = 20.0 * np.log10(amplitude[amplitude > 0])
        look.sigma0 += np.histogram(np.clip(levels, -59.99, 29.99), SIGMA0_EDGES)[0]


def _card(sample: Sample, tile: NDArray[np.uint8]) -> TileCard:
    meta = sample.meta if "meta.json" in sample.members else {}
    optical = sample.members.get("optic.png")
    return TileCard(
        radar=radar_thumbnail(tile),
        optical=None if optical is None else colour_thumbnail(decode_rgb8(optical)),
        caption=sample.caption or "",
        key=sample.key,
        facts=list(_card_facts(meta, tile)),
    )


def _card_facts(meta: Mapping[str, Any], tile: NDArray[np.uint8]) -> Iterator[str]:
    yield f"{tile.shape[0]} x {tile.shape[1]} px" + _with_unit(meta, "pixel_m", " of {:g} m")
    if meta.get("synthetic") is True:
        yield f"synthetic, seed {meta.get('seed')}"
    for name in ("split", "scene_id"):
        if meta.get(name):
            yield str(meta[name])
    channel = " ".join(str(meta[n]) for n in ("band", "polarization") if meta.get(n))
    if channel:
        yield channel
    yield from filter(None, (_with_unit(meta, "incidence_deg", "{:.1f}° incidence"),
                             _with_unit(meta, "enl", "{:.2g} looks")))  # fmt: skip


def _with_unit(meta: Mapping[str, Any], name: str, pattern: str) -> str:
    value = meta.get(name)
    return pattern.format(value) if isinstance(value, int | float) else ""


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
            distribution=distribution_figure(measured) if measured else "",
            radiometry=radiometry_figure(inspection.looks, SIGMA0_EDGES),
            numbers=numbers_figure(inspection.looks),
        )
    )


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
    for name, says in (("incidence_deg", "{:.1f}°"), ("enl", "{:.3g}"), ("words", "{:.1f}")):
        if spread := survey.spreads.get(name):
            yield f"{_LABELS[name]}, mean", says.format(spread.mean)
    yield "pixels looked at", f"{look.tiles:,} tiles"


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
