"""Section of the page on E12: accuracy against the share of real labels, table, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sarhpc.evaluation.figures import COLOURS, INK, label_axis, new_figure, svg_text

_CURVES = {"real": ("real alone", "-", 0.98), "mixed": ("real and synthetic", "--", 1.02)}
"""Setting -> label, dashes, and horizontal factor that keeps its points apart from the other."""
_NAMES = {
    "real": "real on real (TRTR)",
    "mixed": "real and synthetic on real (TSRTR)",
    "synthetic": "synthetic on real (TSTR)",
    "real, tested on synthetic": "real on synthetic (TRTS)",
    "real, labels shuffled": "control: real, labels shuffled",
    "synthetic, labels shuffled": "control: synthetic, labels shuffled",
}
_ORDER = tuple(_NAMES)
_CLASSES = {"gain": "good", "loss": "bad"}
MOST_CLASSES = 12
"""Classes that are named on the page."""


def section(block: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The variables of `page_use.html.j2`: rows of the table, gains, and the figure as SVG.

    Args:
        block: `use` of the result.
        folder: of the evaluation, which holds nothing that the section needs.
    """
    if "scores" not in block:
        return {"reason": block["reason"], "rows": (), "gains": ()}
    scores = sorted(block["scores"], key=lambda one: (_ORDER.index(one["setting"]), one["share"]))
    classes = list(block["classes"])
    more = len(classes) - MOST_CLASSES
    named = ", ".join(classes[:MOST_CLASSES]) + (f" and {more} more" if more > 0 else "")
    return {
        **block,
        "named": named,
        "rows": [{**one, "name": _NAMES[one["setting"]], "of": percent(one)} for one in scores],
        "gains": [{**one, "css": _CLASSES.get(one["verdict"], "fair")} for one in block["gains"]],
        "figure": use_figure(scores, block["chance"]),
        "alt": _alternative(scores, block["chance"]),
    }


def sentence(block: Mapping[str, Any], judged: str) -> str:
    """What synthetic images add to the fewest real labels; empty if not measured."""
    gains = sorted(block.get("gains", ()), key=lambda one: one["share"])
    if not gains:
        return ""
    one = gains[0]
    return (
        f"Beside {one['labels']} real labels its images change the balanced accuracy of a small "
        f"network by {one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f}): "
        f"{one['verdict']}."
    )


def percent(score: Mapping[str, Any]) -> str:
    """Share of the real labels, as it is written in the table; empty without real labels."""
    return f"{100 * score['share']:.3g} %" if score["labels"] else ""


def use_figure(scores: Sequence[Mapping[str, Any]], chance: float) -> str:
    """SVG: balanced accuracy against real labels, with intervals, and chance as a line."""
    figure: Any
    figure, axes = new_figure(1)
    figure.set_size_inches(6.4, 3.4)
    figure.subplots_adjust(left=0.1, right=0.97, bottom=0.2, top=0.96)
    axis = axes[0]
    for (setting, (label, dash, beside)), colour in zip(_CURVES.items(), COLOURS, strict=False):
        points = [one for one in scores if one["setting"] == setting]
        x = [beside * one["labels"] for one in points]
        axis.plot(x, [one["value"] for one in points], "o", ls=dash, color=colour, label=label)
        low, high = ([one[end] for one in points] for end in ("low", "high"))
        axis.vlines(x, low, high, color=colour, lw=1.4)
    for one in scores:
        if one["setting"] == "synthetic":
            axis.axhline(one["value"], color=COLOURS[3], lw=1.4, ls="-.", label="synthetic alone")
            axis.axhspan(one["low"], one["high"], color=COLOURS[3], alpha=0.12, lw=0)
    axis.axhline(chance, color=INK, lw=1, ls=":", label="chance")
    axis.set_xscale("log")
    axis.minorticks_off()
    asked = {one["labels"]: percent(one) for one in scores if one["setting"] == "real"}
    axis.set_xticks(list(asked), [f"{labels}\n{share}" for labels, share in asked.items()])
    axis.set_ylim(0, 1.02)
    label_axis(axis, "", "real labels, and their share", "balanced accuracy on real images")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return svg_text(figure)


def _alternative(scores: Sequence[Mapping[str, Any]], chance: float) -> str:
    """What the figure shows, in words and numbers."""
    said = [
        f"{_NAMES[one['setting']]}{_with_labels(one)}: "
        f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        for one in scores
        if one["setting"] in (*_CURVES, "synthetic")
    ]
    return f"Balanced accuracy against real labels; chance is {chance:.2f}. {'; '.join(said)}."


def _with_labels(score: Mapping[str, Any]) -> str:
    return f", {score['labels']} real labels" if score["labels"] else ""
