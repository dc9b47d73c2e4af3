"""Figures of levels (E3) and of the laws of clutter (E2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.figures import INK, SOFT, Figure, SetStyle, label_axis, new_figure, svg_text
from sarhpc.measures.amplitude_laws import law_cumulants
from sarhpc.measures.features import TOP_CODE, Features
from sarhpc.measures.law_densities import log_intensity_density
from sarhpc.measures.levels import LEVEL_EDGES_DB
from sarhpc.measures.log_cumulants import inverse_trigamma

NEPERS_PER_DB = math.log(10.0) / 10.0
"""Of power."""
POINTS = 160
"""Most tiles of a set in the log-cumulant diagram."""
LAW_NAMES = {"gamma": "gamma (speckle alone)", "k": "K", "g0": "G0", "weibull": "Weibull"}
Array = NDArray[np.float64]
_FIRST = 2
"""First bin that is drawn."""
_STEP_DB = float(LEVEL_EDGES_DB[1] - LEVEL_EDGES_DB[0])
_CENTRES = (LEVEL_EDGES_DB[1:] + LEVEL_EDGES_DB[:-1]) / 2


@dataclass(frozen=True)
class Fit:
    """A law whose k2 is that of a set, at the level of its tiles."""

    law: str
    shape: float
    miss: float
    """k3 of the law less that of the set."""

    @property
    def text(self) -> str:
        """Its name and shape."""
        name = {"k": "nu", "g0": "M", "weibull": "b"}.get(self.law)
        return LAW_NAMES[self.law] + (f", {name} = {self.shape:.3g}" if name else "")


def levels_figure(sets: Mapping[str, Features], styles: Mapping[str, SetStyle]) -> Figure:
    """Histograms of the levels of all pixels of each set."""
    figure, [axis] = new_figure(1)
    medians, densities, below = {}, [], {}
    for name, features in sets.items():
        # What lies below the histogram is in its first bin, and would press all others down.
        density = level_density(features)
        below[name] = float(density[:_FIRST].sum() * _STEP_DB)
        densities.append(density)
        inner = slice(_FIRST, None)
        styles[name].of(axis.plot(_CENTRES[inner], density[inner], **styles[name].line))
        medians[name] = float(np.median(features.percentiles_db[:, 3]))
    axis.set_xlim(*_shown(densities))
    axis.set_ylim(0)
    label_axis(axis, "", "level, dB", "share of pixels per dB")
    stated = ", ".join(f"{name} {value:.1f} dB" for name, value in medians.items())
    note = ""
    if max(below.values()) >= 0.0005:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in below.items())
        note = f"Below {LEVEL_EDGES_DB[_FIRST]:.0f} dB, and not drawn: {shares} of the pixels."
    if any(is_coded(features) for features in sets.values()):
        note += " 8-bit codes are drawn spread to half way to their neighbours."
    alt = f"Histograms of levels; medians: {stated}."
    return Figure("Levels (E3)", svg_text(figure), alt, note.strip())


def fits_figure(name: str, features: Features, looks: float, style: SetStyle) -> Figure:
    """Levels of a set from the mean of each tile, and the laws that were fitted to them."""
    density, fits = relative_density(features), fitted(features, looks)
    figure, [axis] = new_figure(1)
    axis.fill_between(_RELATIVE, density, step="mid", color=style.colour, alpha=0.22, lw=0)
    axis.step(_RELATIVE, density, where="mid", color=style.colour, lw=1.2)
    k1 = _mean_of_logarithm(features)
    best, speckle = (
        next(fit for fit in fits if (fit.law == "gamma") == alone) for alone in (False, True)
    )
    for fit, dash in ((best, "-"), (speckle, (0, (4, 2)))):
        x = (_RELATIVE - k1) * NEPERS_PER_DB
        law = log_intensity_density(fit.law, fit.shape, looks, x) * NEPERS_PER_DB
        axis.plot(_RELATIVE, law, color=INK, lw=1.3, ls=dash, label=fit.text)
    axis.set_xlim(*_shown([density], _RELATIVE))
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8.5, loc="upper left")
    label_axis(axis, "", "level from the mean of the tile, dB", "share of pixels per dB")
    alt = (
        f"Levels of {name} from the mean of each tile. Nearest law: {best.text}, whose k3 differs "
        f"by {best.miss:+.2f}; speckle alone differs by {speckle.miss:+.2f}."
    )
    note = (
        f"Solid: of K, G0 and Weibull with L = {looks:.3g} looks (E1) and the k2 of the set, the "
        "one with the nearest k3. Dashed: speckle without texture."
    )
    if is_coded(features):
        note += " Rounding to 8 bits moves k3: fits of masters are to be preferred."
    return Figure(f"Fitted laws: {name} (E2)", svg_text(figure), alt, note)


def diagram_figure(
    sets: Mapping[str, Features], styles: Mapping[str, SetStyle], looks: float
) -> Figure:
    """The log-cumulant diagram: tiles, means of sets, and the curves of the laws."""
    figure, [axis] = new_figure(1)
    clouds = {name: features.log_cumulants[:, 1:] for name, features in sets.items()}
    stated = []
    for name, cloud in clouds.items():
        shown = cloud[np.linspace(0, len(cloud) - 1, min(len(cloud), POINTS)).astype(int)]
        colour, of = styles[name].colour, styles[name].of
        of(axis.scatter(shown[:, 1], shown[:, 0], s=5, color=colour, alpha=0.45, lw=0))
        k2, k3 = cloud.mean(0)
        of(axis.plot(k3, k2, "o", color=colour, ms=7.5, mec="white", mew=1, zorder=5))
        stated.append(f"{name} k2 {k2:.2f}, k3 {k3:.2f}")
    _limits(axis, np.concatenate(list(clouds.values())), looks)
    _curves(axis, looks)
    label_axis(axis, "", "k3 of ln I", "k2 of ln I")
    alt = f"Log-cumulant diagram. Means of sets: {'; '.join(stated)}."
    note = (
        f"A dot is a tile, a disc the mean of a set. Speckle of L looks without texture is on the "
        f"curve “gamma” (square: L = {looks:.3g}, the looks of the real tiles); texture leads to "
        "higher k2, along K or G0."
    )
    return Figure("Log-cumulant diagram (E2)", svg_text(figure), alt, note)


def fitted(features: Features, looks: float) -> list[Fit]:
    """Laws with the k2 of the levels from the mean of each tile, nearest in k3 first."""
    k2, k3 = _relative_cumulants(features)
    texture = inverse_trigamma(k2 - law_cumulants("gamma", looks, looks)[0])
    shapes = {
        "gamma": looks,
        "k": texture,
        "g0": texture,
        "weibull": math.sqrt(math.pi**2 / 6 / k2),
    }
    fits = [
        Fit(law, shape, law_cumulants(law, shape, looks)[1] - k3)
        for law, shape in shapes.items()
        if law not in ("k", "g0") or math.isfinite(shape)
    ]
    return sorted(fits, key=lambda fit: abs(fit.miss))


def is_coded(features: Features) -> bool:
    """Whether levels are those of codes proportional to amplitude, with nothing between them."""
    return bool(features.histogram.sum(0)[~_HELD].sum() < 1e-9)


def level_density(features: Features) -> Array:
    """Share of the pixels of a set per dB (256,); codes are spread to half way to the next."""
    mean = features.histogram.mean(0)
    return (mean @ _SPREAD if is_coded(features) else mean) / _STEP_DB


def relative_density(features: Features) -> Array:
    """Share of pixels per dB (512,) by level from the mean of each tile; see `_RELATIVE`."""
    histograms = features.histogram @ _SPREAD if is_coded(features) else features.histogram
    total = np.zeros(_RELATIVE.size)
    for histogram, mean in zip(histograms, features.mean_db, strict=True):
        total += np.interp(_RELATIVE + mean, _CENTRES, histogram, left=0.0, right=0.0)
    return np.asarray(total / len(features) / _STEP_DB)


_RELATIVE = np.arange(-256, 256) * _STEP_DB
"""Levels from the mean of a tile, dB."""


def _code_bins() -> tuple[NDArray[np.bool_], Array]:
    """Bins that hold a code, and the matrix that spreads each to half way to its neighbours."""
    codes = np.arange(1, TOP_CODE + 1)
    first_and_last: dict[int, list[int]] = {}
    for code in codes:
        level = 20 * math.log10(code / TOP_CODE)
        bin_ = min(max(int(np.searchsorted(LEVEL_EDGES_DB, level, side="right")) - 1, 0), 255)
        first_and_last.setdefault(bin_, [code, code])[1] = code
    held = np.zeros(256, np.bool_)
    spread = np.zeros((256, 256))
    for bin_, (low, high) in first_and_last.items():
        held[bin_] = True
        ends = 20 * np.log10(np.array([low - 0.5, high + 0.5]) / TOP_CODE)
        inside = np.minimum(LEVEL_EDGES_DB[1:], ends[1]) - np.maximum(LEVEL_EDGES_DB[:-1], ends[0])
        inside = np.maximum(inside, 0.0)
        spread[bin_] = inside / inside.sum() if inside.any() else np.eye(256)[bin_]
    return held, spread


_HELD, _SPREAD = _code_bins()


def _relative_cumulants(features: Features) -> tuple[float, float]:
    """k2 and k3 of ln I of all pixels, each from the mean level of its tile."""
    k1, k2, k3 = features.log_cumulants.T
    d = k1 - features.mean_db * NEPERS_PER_DB
    d = d - d.mean()
    second = float(k2.mean() + np.square(d).mean())
    return second, float(k3.mean() + 3 * (d * k2).mean() + (d**3).mean())


def _mean_of_logarithm(features: Features) -> float:
    """Mean level of the logarithm from the level of the mean, dB."""
    return float((features.log_cumulants[:, 0] / NEPERS_PER_DB - features.mean_db).mean())


def _shown(densities: list[Array], centres: Array = _CENTRES) -> tuple[float, float]:
    """Levels between which all but a thousandth of the pixels lie."""
    total = np.cumsum(np.sum(densities, axis=0))
    low, high = np.searchsorted(total / total[-1], [0.001, 0.9995])
    return float(centres[max(low - 6, 0)]), float(centres[min(high + 6, centres.size - 1)])


def _limits(axis: object, points: Array, looks: float) -> None:
    gamma = np.array(law_cumulants("gamma", looks, looks))
    low = np.minimum(np.percentile(points, 2, axis=0), gamma)
    high = np.maximum(np.percentile(points, 98, axis=0), gamma)
    margin = 0.12 * (high - low) + 0.02
    axis.set_xlim(low[1] - margin[1], max(high[1] + margin[1], 0.3))  # type: ignore[attr-defined]
    axis.set_ylim(max(low[0] - margin[0], 0), high[0] + margin[0])  # type: ignore[attr-defined]


def _curves(axis: object, looks: float) -> None:
    limits3, limits2 = axis.get_xlim(), axis.get_ylim()  # type: ignore[attr-defined]
    shapes = np.geomspace(0.05, 400, 300)
    for law, dash in zip(("gamma", "k", "g0", "weibull"), ("-", "--", "-.", ":"), strict=True):
        curve = np.array([law_cumulants(law, s, s if law == "gamma" else looks) for s in shapes])
        name = LAW_NAMES[law].split()[0]
        axis.plot(curve[:, 1], curve[:, 0], color=SOFT, lw=1.1, ls=dash, label=name, zorder=1)  # type: ignore[attr-defined]
    axis.legend(frameon=False, fontsize=8.5, loc="best", handlelength=2.6)  # type: ignore[attr-defined]
    k2, k3 = law_cumulants("gamma", looks, looks)
    axis.plot(k3, k2, "s", color=SOFT, ms=5, zorder=4)  # type: ignore[attr-defined]
    axis.set_xlim(limits3)  # type: ignore[attr-defined]
    axis.set_ylim(limits2)  # type: ignore[attr-defined]
