"""The section of the page on images and their captions (E10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

WORDS: Mapping[str, str] = {
    "score": "CLIP score, 100 times the cosine",
    "r_precision": "own caption nearest",
    "classes": "class of the caption recognised, macro-F1",
}
"""Measure -> its words, without those of relations."""
RELATION_WORDS: Mapping[str, str] = {
    "range": "near range and far range as the caption says",
    "left and right": "left and right as the caption says",
    "upper and lower": "upper and lower part as the caption says",
}


def section(block: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Variables of the template: a row for each measure, and classes set by set."""
    sets = {name: dict(measures_of(found)) for name, found in block["sets"].items()}
    words = list(dict.fromkeys(text for found in sets.values() for text in found))
    return {
        "model": block.get("model", ""),
        "revision": block.get("revision", ""),
        "names": list(sets),
        "images": [block["sets"][name] for name in sets],
        "rows": [(text, [found.get(text) for found in sets.values()]) for text in words],
        "classes": list(_class_rows(block)),
        "columns": list(block["classes"]),
        "contract": block.get("contract", {}),
        "left_out": block["left_out"],
    }


def sentence(block: Mapping[str, Any], judged: str) -> str:
    """How well the classes of captions are recognised, beside real tiles; empty if not measured."""
    stated = [
        f"{found['classes']['value']:.2f} in {name}"
        for name, found in block["sets"].items()
        if name in (judged, "real") and "value" in found.get("classes", {})
    ]
    return f"A CLIP recognises the class of the caption (macro-F1): {', '.join(stated)}." * bool(
        stated
    )


def measures_of(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each measure of a set in words, with its value or why it has none.

    A relation that no caption of the set names is passed over.
    """
    for name, words in WORDS.items():
        if name in found:
            among = found[name].get("among")
            yield (f"{words} of {among}" if among else words), found[name]
    for name, one in found.get("relations", {}).items():
        if not str(one.get("left_out", "")).startswith("0 "):
            yield RELATION_WORDS.get(name, name), one


def _class_rows(block: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[int, float | None]]]]:
    """Yield each set with images asked of each class, and the share recognised as it."""
    for name, found in block["sets"].items():
        classes = found.get("classes", {})
        if "confusion" not in classes:
            continue
        cells = []
        for number, row in enumerate(classes["confusion"]):
            asked = sum(row)
            cells.append((asked, row[number] / asked if asked else None))
        yield name, cells
