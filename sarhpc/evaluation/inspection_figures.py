"""Curves of the inspection page: radiometry from pixels, histograms from metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.figures import COLOURS, Figure, label_axis, new_figure, svg_text
from sarhpc.measures.looks import LN_EDGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sarhpc.evaluation.pixel_survey import PixelSurvey

Draw = Callable[["Axes"], None]
Array = NDArray[np.float64]


def radiometry_figures(looks: Sequence[PixelSurvey], sigma0_edges: Array) -> list[Figure]:
    """Backscatter of calibrated pixels, and local looks beside the expected ones, if known."""
    return [_drawn(looks, *panel) for panel in _radiometry(looks, sigma0_edges)]


def numbers_figures(looks: Sequence[PixelSurvey]) -> list[Figure]:
    """Histograms of incidence, caption length, noise floor and shares of tiles, where they vary."""
    wanted = (
        ("incidence_deg", "incidence", "degrees"),
        ("words", "length of captions", "words"),
        ("noise_floor_db", "noise floor", "sigma0, dB"),
        ("valid_fraction", "valid pixels", "share of tile"),
        ("saturated_fraction", "saturated pixels", "share of tile"),
    )
    return [
        _drawn(looks, _histograms(looks, name), title, unit)
        for name, title, unit in wanted
        if _varies(looks, name)
    ]


def _varies(looks: Sequence[PixelSurvey], name: str) -> bool:
    """Whether a quantity has more than one value; one alone stands in the text."""
    spreads = [s for look in looks if (s := look.survey.spreads.get(name))]
    return len({value for s in spreads for value in (s.least, s.most)}) > 1


def _radiometry(looks: Sequence[PixelSurvey], edges: Array) -> Iterator[tuple[Draw, str, str]]:
    if any(look.sigma0.any() for look in looks):
        yield _sigma0(looks, edges), "backscatter of calibrated tiles", "sigma0, dB"
    if any(look.features is not None for look in looks):
        yield _local_looks(looks), "looks in 9 x 9 windows", "ENL (dotted: expected)"


def _sigma0(looks: Sequence[PixelSurvey], edges: Array) -> Draw:
    def _draw(axis: Axes) -> None:
        for look, colour in zip(looks, COLOURS, strict=False):
            if look.sigma0.any():
                share = look.sigma0 / look.sigma0.sum()
                axis.stairs(share, edges, color=colour, label=look.survey.name, lw=1.4)

    return _draw


def _local_looks(looks: Sequence[PixelSurvey]) -> Draw:
    def _draw(axis: Axes) -> None:
        for look, colour in zip(looks, COLOURS, strict=False):
            if look.features is not None:
                share = look.features.local_enl.mean(0)
                shown = np.flatnonzero(share)
                ends = slice(shown[0], shown[-1] + 1)
                edges = np.exp(LN_EDGES[shown[0] : shown[-1] + 2])
                axis.stairs(share[ends], edges, color=colour, lw=1.4, label=look.survey.name)
            if expected := look.survey.spreads.get("enl"):
                axis.axvline(expected.mean, color=colour, lw=1, ls=":")
        axis.set_xscale("log")

    return _draw


def _histograms(looks: Sequence[PixelSurvey], name: str) -> Draw:
    def _draw(axis: Axes) -> None:
        for look, colour in zip(looks, COLOURS, strict=False):
            if spread := look.survey.spreads.get(name):
                share = np.array(spread.counts) / len(spread)
                axis.stairs(share, spread.edges, color=colour, fill=True, alpha=0.35)
                axis.stairs(share, spread.edges, color=colour, lw=1.2, label=look.survey.name)
        spreads = [s for look in looks if (s := look.survey.spreads.get(name))]
        axis.set_xlim(*_zoom(spreads[0].edges, [(s.least, s.most) for s in spreads]))

    return _draw


def _zoom(edges: Sequence[float], ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Limits that leave out empty ends."""
    width = edges[1] - edges[0]
    low = min(least for least, _ in ranges) - 2 * width
    high = max(most for _, most in ranges) + 2 * width
    return max(edges[0], min(low, edges[-2])), min(edges[-1], max(high, edges[1]))


def _drawn(looks: Sequence[PixelSurvey], draw: Draw, title: str, unit: str) -> Figure:
    figure, [axis] = new_figure(1)
    draw(axis)
    label_axis(axis, "", unit, "share")
    if len(axis.get_legend_handles_labels()[0]) > 1:
        axis.legend(frameon=False, fontsize=8)
    names = ", ".join(look.survey.name for look in looks)
    return Figure(title.capitalize(), svg_text(figure), f"Histogram of {title} of {names}.")
