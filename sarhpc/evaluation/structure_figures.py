"""Figures of speckle and structure: looks (E1), autocorrelation (E4), spectrum (E5), distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sarhpc.evaluation.figures import INK, SOFT, Figure, SetStyle, label_axis, new_figure, svg_text
from sarhpc.measures.distances import autocorrelation, looks, uniform
from sarhpc.measures.features import Features
from sarhpc.measures.looks import LN_EDGES
from sarhpc.measures.nulls import Verdict
from sarhpc.measures.speckle_correlation import LAGS
from sarhpc.measures.spectrum import LINES, RADII, SEGMENT_PX

Sets = Mapping[str, Features]
Styles = Mapping[str, SetStyle]
_TOGETHER = 4
"""Bins of ln ENL that are drawn as one."""


def looks_figure(sets: Sets, styles: Styles) -> Figure:
    """Local numbers of looks in windows of 9 x 9 px of each set."""
    figure, [axis] = new_figure(1)
    edges = np.exp(LN_EDGES[::_TOGETHER])
    width = _TOGETHER * float(LN_EDGES[1] - LN_EDGES[0])
    shares, stated = [], []
    for name, features in sets.items():
        share = features.local_enl.mean(0).reshape(-1, _TOGETHER).sum(1) / width
        shares.append(share)
        styles[name].of(axis.stairs(share, edges, **styles[name].line))
        stated.append(f"{name} {looks(features, uniform(features)):.2f}")
    total = np.cumsum(np.sum(shares, axis=0))
    low, high = np.searchsorted(total / total[-1], [0.001, 0.999])
    axis.set_xscale("log")
    axis.set_xlim(edges[max(low - 2, 0)], edges[min(high + 3, edges.size - 1)])
    axis.set_ylim(bottom=0)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if _within(t, axis.get_xlim())]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    label_axis(axis, "", "ENL of 9 x 9 px", "density per ln ENL")
    alt = f"Local equivalent numbers of looks; corrected mode: {', '.join(stated)}."
    return Figure("Number of looks (E1)", svg_text(figure), alt)


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def correlation_figures(sets: Sets, styles: Styles) -> list[Figure]:
    """Autocorrelation of speckle along range and along azimuth."""
    found = {name: autocorrelation(one, uniform(one)) for name, one in sets.items()}
    lags, figures = np.arange(LAGS + 1), []
    least = min(0.0, *(float(of.min()) for of in found.values()))
    for row, direction in ((1, "range"), (0, "azimuth")):
        figure, [axis] = new_figure(1)
        for name, values in found.items():
            curve = axis.plot(lags, [1.0, *values[row]], marker="o", ms=3, **styles[name].line)
            styles[name].of(curve)
        axis.axhline(0, color=SOFT, lw=0.8)
        axis.set_ylim(least - 0.03, 1.03)
        axis.set_xticks(lags)
        label_axis(axis, "", f"lag in {direction}, px", "autocorrelation of I")
        stated = ", ".join(f"{name} {values[row][0]:.3f}" for name, values in found.items())
        alt = f"Autocorrelation of speckle in {direction}; at lag 1: {stated}."
        figures.append(Figure(f"Speckle in {direction} (E4)", svg_text(figure), alt))
    return figures


def spectrum_figure(sets: Sets, styles: Styles) -> Figure:
    """Radial spectrum of ln A of each set, with the frequencies of a grid of 8 px."""
    figure, [axis] = new_figure(1)
    frequency = np.arange(1, RADII + 1) / (2 * RADII)
    stated = []
    for name, features in sets.items():
        level = 10 * np.log10(features.radial.mean(0))
        styles[name].of(axis.plot(frequency, level, **styles[name].line))
        stated.append(f"{name} {level[0] - level[-1]:.1f} dB")
    for line in LINES / SEGMENT_PX:
        axis.axvline(line, color=SOFT, lw=0.8, ls=":")
    axis.set_xlim(0, 0.5)
    axis.set_xticks([0, *(LINES / SEGMENT_PX)], ["0", "1/8", "1/4", "3/8", "1/2"])
    label_axis(axis, "", "cycles / px", "power density of ln A, dB")
    alt = f"Radial spectrum of ln A; fall from lowest to highest frequency: {', '.join(stated)}."
    note = "Dotted: where an autoencoder or JPEG with blocks of 8 px leaves lines."
    return Figure("Spectrum (E5)", svg_text(figure), alt, note)


def lines_figure(sets: Sets, styles: Styles) -> Figure:
    """Level of the lines of a grid of 8 px over the continuum of each set, on both axes."""
    figure, [axis] = new_figure(1)
    stated, places = [], np.arange(LINES.size, dtype=float)
    for number, (name, features) in enumerate(sets.items()):
        azimuth, range_ = features.lines_db.mean(0)
        beside = (number - (len(sets) - 1) / 2) * 0.7 / max(len(sets), 2)
        for values, marker, shift in ((range_, "o", -0.04), (azimuth, "^", 0.04)):
            style = {"color": styles[name].colour, "marker": marker, "ms": 5, "ls": "none"}
            styles[name].of(axis.plot(places + beside + shift, values, **style))
        stated.append(f"{name} {max(np.abs(azimuth).max(), np.abs(range_).max()):.2f} dB")
    axis.axhline(0, color=SOFT, lw=0.8)
    axis.set_xticks(places, ["1/8", "1/4", "3/8", "1/2"])
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, -0.5), max(high, 0.5))
    label_axis(axis, "", "cycles / px", "line over continuum, dB")
    alt = f"Lines of a grid of 8 px over the continuum; largest: {', '.join(stated)}."
    return Figure("Lines of a grid of 8 px (E5)", svg_text(figure), alt,
                  "Discs: range; triangles: azimuth. 0 dB is no line.")  # fmt: skip


def distances_figure(
    measures: Mapping[str, Mapping[str, Any]], words: Mapping[str, str], styles: Styles
) -> Figure | None:
    """Each distance over what 95 % of real against real lie below; None without a null.

    Args:
        measures: verdicts by set and distance.
        words: what each distance says, in the order of the rows.
        styles: of the sets.
    """
    rows = list(words)
    ratios = {
        name: {m: v for m, v in of.items() if isinstance(v, Verdict) and v.null_95 > 0}
        for name, of in measures.items()
    }
    ratios = {name: of for name, of in ratios.items() if of}
    if not ratios:
        return None
    figure, [axis] = new_figure(1, width=7.0, height=0.62 + 0.26 * len(rows), left=3.25)
    for number, (name, of) in enumerate(ratios.items()):
        shift = ((len(ratios) - 1) / 2 - number) * 0.6 / max(len(ratios), 2)
        _intervals(axis, of, rows, shift, styles[name])
    axis.axvline(1, color=INK, lw=1.2)
    axis.set_xscale("log")
    labels = [f"{row.split('_')[0]}  {words[row]}" for row in reversed(rows)]
    axis.set_yticks(range(len(rows)), labels)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if _within(t, axis.get_xlim())]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    label_axis(axis, "", "distance / (95 % of real against real)", "")
    stated = _beyond(ratios)
    alt = f"Distances relative to those of real against real. Beyond 1: {stated}."
    note = (
        "Left of 1: as near as real tiles are to real tiles of other scenes. Bars: 95 % interval."
    )
    return Figure("All distances at a glance", svg_text(figure), alt, note)


def _intervals(
    axis: Any, of: Mapping[str, Verdict], rows: Sequence[str], shift: float, style: SetStyle
) -> None:
    for place, row in enumerate(reversed(rows)):
        if row not in of:
            continue
        found = of[row]
        low, middle, high = (
            max(v / found.null_95, 0.02) for v in (found.low, found.raw, found.high)
        )
        style.of(axis.plot([low, high], [place + shift] * 2, color=style.colour, lw=1.6))
        style.of(axis.plot(middle, place + shift, "o", color=style.colour, ms=4.5))


def _beyond(ratios: Mapping[str, Mapping[str, Verdict]]) -> str:
    found = []
    for name, of in ratios.items():
        names = [row.replace("_", " ") for row, v in of.items() if v.raw > v.null_95]
        found.append(f"{name}: {', '.join(names) or 'none'}")
    return "; ".join(found)
