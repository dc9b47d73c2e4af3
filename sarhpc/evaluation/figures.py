"""Pictures of the report: contact sheets as PNG, curves as SVG, all inline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sarhpc.measures.distances import autocorrelation, uniform
from sarhpc.measures.features import Features
from sarhpc.measures.levels import LEVEL_EDGES_DB
from sarhpc.measures.speckle_correlation import LAGS
from sarhpc.measures.spectrum import RADII

INK, GRID = "#334155", "#e2e8f0"
COLOURS = ("#0f766e", "#c2410c", "#6d28d9", "#0369a1", "#a16207", "#be123c")


def png_uri(image: NDArray[np.uint8], display_px: int | None = None) -> str:
    """A `data:` URI of an image (H, W) or (H, W, 3); small ones are enlarged without smoothing."""
    picture = Image.fromarray(image)
    if display_px and max(picture.size) < display_px:
        factor = display_px // max(picture.size)
        if factor > 1:
            size = (picture.width * factor, picture.height * factor)
            picture = picture.resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def distribution_figure(sets: Mapping[str, Features]) -> str:
    """SVG: dB histograms, speckle autocorrelation and radial spectrum of every set."""
    figure, axes = new_figure(3)
    for (name, features), colour in zip(sets.items(), COLOURS, strict=False):
        style = {"color": colour, "label": name, "lw": 2.0 if name == "real" else 1.4}
        centres = (LEVEL_EDGES_DB[1:] + LEVEL_EDGES_DB[:-1]) / 2
        axes[0].plot(centres, features.histogram.mean(0), **style)
        lags = np.arange(LAGS + 1)
        azimuth, range_ = autocorrelation(features, uniform(features))
        axes[1].plot(lags, [1.0, *range_], **style)
        axes[1].plot(lags, [1.0, *azimuth], color=colour, lw=1, ls=":")
        frequency = np.arange(1, RADII + 1) / (2 * RADII)
        axes[2].plot(frequency, 10 * np.log10(features.radial.mean(0)), **style)
    label_axis(axes[0], "dB histogram (E3)", "20 log10 A, dB", "fraction of pixels")
    axes[0].set_xlim(-45, 2)
    label_axis(axes[1], "speckle autocorrelation (E4)", "lag, px (dotted: azimuth)", "")
    label_axis(axes[2], "spectrum of ln A (E5)", "cycles / px", "dB")
    axes[0].legend(frameon=False, fontsize=8)
    return svg_text(figure)


def training_figure(rows: Sequence[Mapping[str, float]]) -> str:
    """SVG: loss (with its running mean), gradient norm and samples per second over steps."""
    figure, axes = new_figure(3)
    steps = np.array([row["step"] for row in rows], dtype=float)
    loss = np.array([row["loss"] for row in rows], dtype=float)
    axes[0].plot(steps, loss, color=GRID, lw=1)
    axes[0].plot(steps, _running_mean(loss), color=COLOURS[0], lw=1.8)
    label_axis(axes[0], "training loss", "step", "")
    for axis, key, title in ((axes[1], "grad_norm", "gradient norm"),
                             (axes[2], "samples_per_s", "samples per second")):  # fmt: skip
        values = np.array([row.get(key, np.nan) for row in rows], dtype=float)
        axis.plot(steps, values, color=COLOURS[3], lw=1)
        label_axis(axis, title, "step", "")
    return svg_text(figure)


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    width = max(1, len(values) // 20)
    kernel = np.ones(width)
    weight = np.convolve(np.ones_like(values), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / weight


def new_figure(panels: int) -> tuple[object, NDArray[np.object_]]:
    """A figure with this many axes beside each other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    # A fixed salt keeps the ids inside the SVG, and so the report's bytes, the same every time.
    mpl.rcParams.update({"svg.hashsalt": "sarhpc", "font.size": 9, "font.family": "sans-serif"})
    width = 3.6 * panels
    figure, axes = plt.subplots(1, panels, figsize=(width, 2.7), squeeze=False)
    # Margins for labels of two lines; a layout engine would draw everything twice to find them.
    figure.subplots_adjust(
        left=0.75 / width, right=1 - 0.2 / width, bottom=0.18, top=0.88, wspace=0.3
    )
    return figure, axes[0]


def label_axis(axis: object, title: str, x: str, y: str) -> None:
    """Title, axis labels and grid in the style of the pages."""
    axis.set_title(title, fontsize=10, color=INK, loc="left")  # type: ignore[attr-defined]
    axis.set_xlabel(x, color=INK)  # type: ignore[attr-defined]
    axis.set_ylabel(y, color=INK)  # type: ignore[attr-defined]
    axis.grid(color=GRID, lw=0.6)  # type: ignore[attr-defined]
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)  # type: ignore[attr-defined]


def svg_text(figure: object) -> str:
    """The figure as an SVG element, and closes it."""
    from matplotlib import pyplot as plt

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})  # type: ignore[attr-defined]
    plt.close(figure)
    return buffer.getvalue().split("<!DOCTYPE")[-1].split(">", 1)[-1]
