"""What the template of the report is given: verdict, pictures, figures and tables of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation import level_figures, structure_figures
from sarhpc.evaluation.figures import Figure, set_styles, training_figures
from sarhpc.evaluation.headline import judge_gates
from sarhpc.evaluation.known_sensitivity import POWERS, SOURCE
from sarhpc.evaluation.page_sections import SECTIONS
from sarhpc.evaluation.report import Picture, Report
from sarhpc.evaluation.set_facts import AMPLITUDE
from sarhpc.measures.distances import DISTANCES, Distance, looks, uniform
from sarhpc.measures.features import Features, measure
from sarhpc.measures.nulls import NoVerdict
from sarhpc.measures.texture import DIRECTIONS, DISTANCES_PX, FEATURES

REAL = "real"
WIDE_PX = 1080
"""Width of the page, within which tiles are enlarged by whole pixels."""


@dataclass(frozen=True)
class Tile:
    """A tile as it stands on the page."""

    image: NDArray[np.uint8]
    alt: str
    name: str
    note: str


@dataclass(frozen=True)
class Pair:
    """A prompt with its tiles."""

    prompt: str
    note: str
    tiles: Sequence[Tile]


def report_context(report: Report, rows: int) -> dict[str, Any]:
    """The variables of `report.html.j2` but for those that depend on the size of the pictures.

    Args:
        report: what is shown.
        rows: most rows of tiles.
    """
    pairs = list(_pairs(report, rows))
    examples = {name: _examples(name, of[:rows]) for name, of in report.examples.items()}
    context: dict[str, Any] = {
        "report": report,
        "judged": _judged(report),
        "judgement": None,
        "pairs": pairs,
        "examples": examples,
        "times": _times(pairs, examples),
        "row": _row_tiles(pairs, examples),
        "training": training_figures(report.training) if report.training else [],
        "contents": list(_contents(report, pairs)),
    }
    return context | (_measured(report) if report.evaluation else {})


def _judged(report: Report) -> str:
    """The set that is held to the gates: the first one that is not real."""
    sets = report.evaluation.sets if report.evaluation else {}
    return next((name for name in sets if name != REAL), "")


def _measured(report: Report) -> dict[str, Any]:
    evaluation = report.evaluation
    assert evaluation is not None
    measured = report.features or {name: measure(tiles) for name, tiles in report.tiles.items()}
    # Decibels of codes and of amplitude have no common axis.
    measured = {name: of for name, of in measured.items() if name not in report.other_pixels}
    compared = [name for name in evaluation.sets if name != REAL]
    styles = set_styles(list(evaluation.sets))
    metrics = _metrics(report)
    judged = _judged(report)
    verdicts = {name: evaluation.sets[name].measures for name in compared}
    shown = [styles[name] for name in evaluation.sets if name in measured]
    return {
        "judgement": judge_gates(report.gates, verdicts.get(judged, {})),
        "compared": compared,
        "metrics": metrics,
        "styles": shown,
        "distances": structure_figures.distances_figure(
            verdicts, {name: words for name, (_, _, words) in metrics.items()}, styles
        ),
        "remarks": [*_remarks(report), *_pixel_remarks(report)],
        "figures": _figures(measured, styles, judged) if REAL in measured else None,
        "figure_note": _figure_note(report),
        "texture": _texture(measured),
        "directions": list(DIRECTIONS),
        "steps": DISTANCES_PX,
        "orientation": [note for note in report.notes if note.startswith("E8")],
        "sensitivity": _sensitivity(metrics),
    }


def _metrics(report: Report) -> dict[str, tuple[Distance, str, str]]:
    """The distances that the evaluation has."""
    sets = report.evaluation.sets.values() if report.evaluation else ()
    found = {name for one in sets for name in one.measures}
    return {name: entry for name, entry in DISTANCES.items() if name in found}


def _figures(
    measured: Mapping[str, Features], styles: Mapping[str, Any], judged: str
) -> dict[str, list[Figure]]:
    real = measured[REAL]
    real_looks = looks(real, uniform(real))
    fits = [
        level_figures.fits_figure(name, of, looks(of, uniform(of)), styles[name])
        for name, of in measured.items()
        if name in (REAL, judged)
    ]
    return {
        "levels": [
            level_figures.levels_figure(measured, styles),
            *fits,
            level_figures.diagram_figure(measured, styles, real_looks),
        ],
        "structure": [
            structure_figures.looks_figure(measured, styles),
            *structure_figures.correlation_figures(measured, styles),
            structure_figures.spectrum_figure(measured, styles),
            structure_figures.lines_figure(measured, styles),
        ],
    }


def _figure_note(report: Report) -> str:
    pixels = report.facts.get("pixels", "")
    if pixels == AMPLITUDE:
        return "Measured on linear amplitude, from masters of 16 bits or more."
    if pixels:
        return (
            f"Measured on {pixels}: at low levels codes are decibels apart, so that a histogram is "
            "a comb, and rounding the darkest pixels moves k3. Masters of 16 bits on both sides "
            "(sar16.npy) have neither."
        )
    return "Means over the tiles of each set."


def _texture(measured: Mapping[str, Features]) -> dict[str, list[tuple[str, list[float]]]]:
    """E6 by set: each feature, and (mean - mean_real) / spread_real by direction and distance."""
    if REAL not in measured:
        return {}
    real = measured[REAL].texture
    spread = np.where(real.std(axis=0) > 0, real.std(axis=0), np.inf)
    return {
        name: [
            (feature, ((of.texture.mean(0) - real.mean(0)) / spread)[..., number].ravel().tolist())
            for number, feature in enumerate(FEATURES)
        ]
        for name, of in measured.items()
        if name != REAL
    }


def _sensitivity(metrics: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in metrics if name in next(iter(POWERS.values()))]
    rows = [(defect, [of[name] for name in names]) for defect, of in POWERS.items()]
    return {"measures": names, "rows": rows, "source": SOURCE}


def _remarks(report: Report) -> Iterator[str]:
    """Sizes behind the verdicts of each set, and once why there is none."""
    without: dict[str, list[str]] = {}
    sets = report.evaluation.sets if report.evaluation else {}
    for name, of in sets.items():
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
            f"{names}: {pixels}, compared with the real tiles in the same pixels. Their looks, "
            "levels and lines below do not compare with those of the other rows, and they are "
            "not in the figures."
        )


def _pairs(report: Report, rows: int) -> Iterator[Pair]:
    """A row for each prompt: the real tile, then what each set has of it."""
    if not report.synthetic:
        return
    count = min(len(pictures) for pictures in report.synthetic.values())
    first = next(iter(report.synthetic.values()))
    for number in range(min(count, rows)):
        tiles = []
        if number < len(report.real):
            tiles.append(_tile("real", report.real[number], "Real tile"))
        for name, pictures in report.synthetic.items():
            tiles.append(_tile(name, pictures[number], f"Synthetic tile of {name}", noted=False))
        yield Pair(first[number].text, first[number].note, tiles)


def _tile(name: str, picture: Picture, what: str, noted: bool = True) -> Tile:
    alt = f"{what}: {picture.text}" if picture.text else what
    return Tile(picture.image, alt, name, picture.note if noted else "")


def _examples(name: str, pictures: Sequence[Picture]) -> list[Tile]:
    return [Tile(one.image, f"{name} image {one.text}", name, one.text) for one in pictures]


def _row_tiles(pairs: Sequence[Pair], examples: Mapping[str, Sequence[Tile]]) -> int:
    """Tiles shown side by side."""
    return max((len(pair.tiles) for pair in pairs), default=8 if examples else 1)


def _times(pairs: Sequence[Pair], examples: Mapping[str, Sequence[Tile]]) -> int:
    """Whole factor by which tiles are enlarged, so that those of a row fit side by side."""
    rows = [pair.tiles for pair in pairs] or list(examples.values())
    if not rows or not rows[0]:
        return 1
    side = max(int(tile.image.shape[1]) for tile in rows[0])
    beside = len(rows[0]) if pairs else 4
    return max(1, min(WIDE_PX // (beside * (side + 8)), 256 // side))


def _contents(report: Report, pairs: Sequence[Pair]) -> Iterator[tuple[str, str]]:
    """Id and title of each part of the page."""
    parts: list[tuple[Any, str, str]] = [
        (pairs, "pictures", "Real beside synthetic"),
        (report.examples, "examples", "Examples"),
        (report.evaluation, "distances", "How close to real"),
        (report.evaluation, "figures", "What the pixels are like"),
        (report.gates, "gates", "Gates"),
        (report.conformity, "conformity", "Image and prompt"),
        *((report.blocks.get(spec.name), spec.name, spec.title) for spec in SECTIONS),
        (report.progress, "progress", "Learning progress"),
        (report.training, "training", "Training"),
        (report.evaluation, "sensitivity", "What each measure sees"),
        (report.stages, "stages", "What was run"),
        (
            report.notes or report.facts,
            "notes",
            "Facts and remarks" if report.stages else "What was compared",
        ),
    ]
    return ((id_, title) for there, id_, title in parts if there)
