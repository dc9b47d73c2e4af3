"""What the evaluation of a run measured of its corpus, measure by measure, for an ablation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sarhpc.evaluation import page_features, page_text
from sarhpc.measures.distances import DISTANCES

JUDGED = "this run"
"""Set of an evaluation that is the corpus of the run."""
_USE = {"synthetic": "synthetic alone", "mixed": "synthetic beside {labels} real labels"}
"""Setting of E12 that a corpus decides -> its words."""
_COPIES = {"memorised": "repeats a training tile", "within": "repeats another image of the corpus"}
"""Share of E11 -> its words."""


@dataclass(frozen=True)
class Cell:
    """A measure of a run."""

    raw: float | None
    """None where there is no number."""
    low: float | None = None
    high: float | None = None
    """95 % interval, of measures that have one."""
    null_median: float | None = None
    null_95: float | None = None
    p_value: float | None = None
    tiles: int | None = None
    reason: str = ""
    """Why there is no number, or no verdict."""
    rank: int | None = None
    """1 is the best of its group; None where it is not ranked."""
    like_best: bool = False
    """Whether its interval meets that of the best."""


@dataclass(frozen=True)
class Measure:
    """A row of the table of measures."""

    name: str
    text: str
    unit: str
    more_is_better: bool


@dataclass(frozen=True)
class Found:
    """A measure of one run, and what else its value depends on."""

    measure: Measure
    cell: Cell
    basis: str = ""


def measures_of(evaluation: Mapping[str, Any] | None) -> Iterator[Found]:
    """Yield each measure of the corpus in an evaluation."""
    if evaluation is not None:
        yield from _distances(evaluation["sets"][JUDGED]["measures"])
        for name, read in _BLOCKS.items():
            if isinstance(block := evaluation.get(name), Mapping):
                yield from read(block)


def _distances(found: Mapping[str, Any]) -> Iterator[Found]:
    for name, (_, unit, text) in DISTANCES.items():
        if name in found:
            measure = Measure(name, f"{name.partition('_')[0]} {text}", unit, False)
            yield Found(measure, _cell(found[name]))


def _features(block: Mapping[str, Any]) -> Iterator[Found]:
    for vectors, found in block["sets"].get(JUDGED, {}).items():
        facts = block["vectors"][vectors]
        of = vectors if "sha256" not in facts else f"{vectors}_{facts['sha256'][:8]}"
        title = page_features.title_of(vectors, facts)
        for name, one in found.items():
            text = f"E9 {page_features.label_of(name, vectors)}, {title}"
            more = name in page_features.MORE_IS_BETTER
            measure = Measure(f"E9_{of}_{name}", text, "", more)
            yield Found(measure, _cell(one), f"{_without_path(facts)} {one.get('tiles')}")


def _text(block: Mapping[str, Any]) -> Iterator[Found]:
    """E10: values of the CLIP that reads images and captions, of which more is better."""
    basis = json.dumps([block.get("model"), block.get("revision")])
    for words, one in page_text.measures_of(block.get("sets", {}).get(JUDGED, {})):
        cell = Cell(one.get("value"), one.get("low"), one.get("high"),
                    reason=str(one.get("left_out", "")))  # fmt: skip
        yield Found(Measure(f"E10_{words}", f"E10 {words}", "", True), cell, basis)


def _memory(block: Mapping[str, Any]) -> Iterator[Found]:
    """E11: shares of the corpus that repeat tiles, and how many of its images differ in effect."""
    basis = json.dumps([block.get(name) for name in ("px", "false_alarms", "calibration")])
    for name, words in _COPIES.items():
        if one := block.get(name):
            cell = Cell(one["share"], one["low"], one["high"])
            yield Found(Measure(f"E11_{name}", f"E11 share that {words}", "", False), cell, basis)
    if diversity := block.get("diversity"):
        cell = Cell(diversity["corpus"]["vendi"])
        measure = Measure("E11_vendi", "E11 Vendi score", "images", True)
        yield Found(measure, cell, json.dumps([basis, diversity["tiles"]]))


def _use(block: Mapping[str, Any]) -> Iterator[Found]:
    """E12: balanced accuracy on real images of networks that learned from the corpus."""
    names = ("task", "classes", "test_groups", "pixels")
    basis = json.dumps([block.get(name) for name in names])
    for one in block.get("scores", ()):
        if one["setting"] in _USE:
            words = _USE[one["setting"]].format(labels=one["labels"])
            text = f"E12 learned from {words}, tested on real, balanced accuracy"
            name = f"E12_{one['setting']}_{one['share']:g}"
            cell = Cell(one["value"], one["low"], one["high"])
            yield Found(Measure(name, text, "", True), cell, basis)


_BLOCKS = {"features": _features, "text": _text, "memory": _memory, "use": _use}
"""Block of an evaluation -> what yields its measures."""


def _cell(found: Mapping[str, Any]) -> Cell:
    names = ("raw", "low", "high", "null_median", "null_95", "p_value", "tiles")
    values: dict[str, Any] = {name: found.get(name) for name in names}
    return Cell(**values, reason=str(found.get("reason", "")))


def _without_path(facts: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in facts.items() if k != "path"}, sort_keys=True)
