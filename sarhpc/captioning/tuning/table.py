"""Table 1 of the paper with our rows beside its own: caption metrics before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "cider": "CIDEr",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
}

PAPER = {
    "CCSMLF": (0.5759, 0.3859, 0.2832, 0.2217, 0.5297, 0.2128, 0.4455),
    "SM Attention + LSTM": (0.7571, 0.6336, 0.5385, 0.4611, 2.3563, 0.3513, 0.6458),
    "Cross-Hierarchy attention": (0.770, 0.649, 0.532, 0.471, 2.363, 0.4238, 0.651),
    "ML Attention + semantic": (0.7597, 0.6421, 0.5517, 0.4623, 2.3614, 0.3543, 0.6563),
    "Multi-level attention": (0.7905, 0.6782, 0.5742, 0.5030, 2.6309, 0.4640, 0.7246),
    "BLIP-RSICD+UCM (the paper)": (0.8029, 0.6941, 0.6061, 0.5336, 2.7239, 0.4208, 0.7178),
}
"""Rows of Table 1, on RSICD, in the order of COLUMNS. The row of the full Transformer is left out:
it has five values for seven columns."""


def render_table(
    before: Mapping[str, Mapping[str, float]],
    after: Mapping[str, Mapping[str, float]],
    images: Mapping[str, int],
    without_meteor: str | None,
) -> str:
    """A Markdown table: a row before and one after for each held-out set, then the paper's.

    Args:
        before: metrics of each set before training, by its name.
        after: the same after.
        images: how many images were captioned, by set.
        without_meteor: why METEOR was not measured; None where it was.
    """
    lines = [
        "| set | images | captioner | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for name in before:
        for when, scores in (("before", before[name]), ("after", after[name])):
            lines.append(f"| {name} | {images[name]} | {when} | {_cells(scores)} |")
    for method, values in PAPER.items():
        cells = _cells(dict(zip(COLUMNS, values, strict=True)))
        lines.append(f"| RSICD, Table 1 of the paper | | {method} | {cells} |")
    notes = ["", "Scores on other images, or on part of a test split, do not rank against Table 1."]
    if without_meteor is not None:
        notes.append(f"METEOR was not measured: {without_meteor}.")
    return "\n".join([*lines, *notes]) + "\n"


def _cells(scores: Mapping[str, Any]) -> str:
    return " | ".join(f"{scores[key]:.4f}" if key in scores else "-" for key in COLUMNS)
