"""The section of the page on distances between features (E9)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORDS: Mapping[str, str] = {
    "frechet": "Fréchet distance",
    "kernel": "kernel distance (MMD², cubic)",
    "precision": "precision, share of synthetic among real",
    "recall": "recall, share of real among synthetic",
    "coverage": "coverage, share of real with a synthetic neighbour",
}
"""Measure -> its words; with a backbone the first two are FID and KID."""
PUBLISHED = {"frechet": "FID", "kernel": "KID"}
MORE_IS_BETTER = ("precision", "recall", "coverage")


def section(block: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Variables of the template: a table for each kind of features, and what is said of it."""
    tables = [
        {
            "title": title_of(name, facts),
            "note": input_of(name, facts),
            "sets": [one for one, found in block["sets"].items() if name in found],
            "rows": _rows(block, name),
        }
        for name, facts in sorted(block["vectors"].items(), reverse=True)
    ]
    return {"tables": [t for t in tables if t["sets"]], "left_out": block["left_out"]}


def sentence(block: Mapping[str, Any], judged: str) -> str:
    """How many of the measures find the judged set as real; empty without verdicts."""
    found = [
        one["p_value"] > 0.05
        for of in block["sets"].get(judged, {}).values()
        for one in of.values()
        if "p_value" in one
    ]
    if not found:
        return ""
    return f"{sum(found)} of {len(found)} measures of its features (E9) find it as real."


def title_of(name: str, facts: Mapping[str, Any]) -> str:
    """What the features are."""
    if name == "measured":
        return f"{facts['width']} values that E1 to E6 measure of each tile"
    return f"{facts['width']} features of {Path(facts['path']).name}"


def input_of(name: str, facts: Mapping[str, Any]) -> str:
    """How a tile becomes features."""
    if name == "measured":
        return "Each in standard deviations of the real tiles; no network, no weights."
    given = facts["input"]
    tiles = " x ".join(map(str, facts["px_of_tiles"]))
    values = (
        "amplitude clipped at full scale, as in the 8-bit picture"
        if given["db"] is None
        else f"levels of {given['db'][0]:g} to {given['db'][1]:g} dB over full scale"
    )
    side = f"{given['px']} x {given['px']} px" if given["px"] else f"{tiles} px"
    fitted = {
        "crop": f"the middle {side} of {tiles} px",
        "resize": f"all {tiles} px, resized to {side}",
        "inside": f"all {tiles} px, resized by the network itself",
    }[given["fit"]]
    return (
        f"Input: {values}; {fitted}; {given['channels']} equal channels. Network {facts['kind']}, "
        f"SHA-256 {facts['sha256'][:12]}."
    )


def label_of(measure: str, vectors: str) -> str:
    """The measure in words, with the name it is published by where the features are a network's."""
    published = PUBLISHED.get(measure) if vectors == "backbone" else None
    return f"{WORDS[measure]}, {published}" if published else WORDS[measure]


def _rows(block: Mapping[str, Any], vectors: str) -> list[dict[str, Any]]:
    found = [of[vectors] for of in block["sets"].values() if vectors in of]
    measures = [name for name in WORDS if any(name in one for one in found)]
    return [
        {
            "words": label_of(name, vectors),
            "more": name in MORE_IS_BETTER,
            "cells": [one.get(name) for one in found],
        }
        for name in measures
    ]
