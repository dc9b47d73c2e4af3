"""Figures of the pages: PNG of tiles, SVG of curves in the colours of the style, all inline."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

INK, SOFT, GRID = "#1e293b", "#586577", "#dde3ea"
COLOURS = ("#0f766e", "#c2410c", "#6d28d9", "#0369a1", "#a16207", "#be123c")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), "-.")
"""Of curves, in turn: sets differ without colours too."""
_VARIABLES = {INK: "ink", SOFT: "soft", GRID: "line"} | {
    colour: f"set-{number}" for number, colour in enumerate(COLOURS, 1)
}
"""Colour in a figure -> variable of `page.css`, which has another value in the dark."""


@dataclass(frozen=True)
class Figure:
    """A figure with what is to be read of it."""

    title: str
    svg: str
    alt: str
    """What it shows, with the numbers that matter, for who does not see it."""
    note: str = ""


@dataclass(frozen=True)
class SetStyle:
    """How a set is drawn in every figure of a page."""

    name: str
    number: int
    """Of the set on the page, 0 for the first."""
    colour: str
    dash: Any
    width: float

    def of(self, artist: Any) -> None:
        """Mark what is drawn as of this set, so that the page can hide it."""
        for one in artist if isinstance(artist, list | tuple) else (artist,):
            one.set_gid(f"set:{self.number}")

    @property
    def line(self) -> dict[str, Any]:
        """Properties of a curve."""
        return {"color": self.colour, "ls": self.dash, "lw": self.width, "label": self.name}

    @property
    def dashes(self) -> str:
        """The same dashes in the legend of the page, whose lines are 1.5 times as wide."""
        if isinstance(self.dash, str):
            return {"-": "none", "-.": "7 3 1.5 3"}[self.dash]
        return " ".join(f"{length * self.width * 1.5:g}" for length in self.dash[1])

    @property
    def variable(self) -> str:
        """Variable of the style that holds the colour."""
        return _VARIABLES[self.colour]


def set_styles(names: Sequence[str]) -> dict[str, SetStyle]:
    """The style of each set: the real tiles in ink, the others in colours and dashes."""
    styles = {}
    for number, name in enumerate(names):
        real = name == "real"
        turn = sum(other != "real" for other in names[:number])
        colour = INK if real else COLOURS[turn % len(COLOURS)]
        dash = "-" if real else DASHES[turn % len(DASHES)]
        styles[name] = SetStyle(name, number, colour, dash, 2.0 if real else 1.6)
    return styles


def png_uri(image: NDArray[np.uint8], display_px: int | None = None) -> str:
    """A `data:` URI of an image (H, W) or (H, W, 3); small ones are enlarged without smoothing."""
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = image[..., 0]
    picture = Image.fromarray(image)
    if display_px and max(picture.size) < display_px:
        factor = display_px // max(picture.size)
        if factor > 1:
            size = (picture.width * factor, picture.height * factor)
            picture = picture.resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def training_figures(rows: Sequence[Mapping[str, float]]) -> list[Figure]:
    """Loss (with its running mean), gradient norm and samples per second over steps."""
    steps = np.array([row["step"] for row in rows], dtype=float)
    loss = np.array([row["loss"] for row in rows], dtype=float)
    smooth = _running_mean(loss)
    figure, [axis] = new_figure(1)
    axis.plot(steps, loss, color=GRID, lw=1)
    axis.plot(steps, smooth, color=COLOURS[0], lw=1.8)
    label_axis(axis, "", "step", "training loss")
    alt = (
        f"Training loss over steps {steps[0]:g} to {steps[-1]:g}: its running mean goes from "
        f"{smooth[0]:.3g} to {smooth[-1]:.3g}."
    )
    found = [Figure("Training loss", svg_text(figure), alt, "Line: running mean.")]
    for key, title in (("grad_norm", "Gradient norm"), ("samples_per_s", "Samples per second")):
        values = np.array([row.get(key, np.nan) for row in rows], dtype=float)
        if not np.isfinite(values).any():
            continue
        figure, [axis] = new_figure(1)
        axis.plot(steps, values, color=COLOURS[3], lw=1)
        label_axis(axis, "", "step", title.lower())
        alt = f"{title} over steps: median {np.nanmedian(values):.3g}."
        found.append(Figure(title, svg_text(figure), alt))
    return found


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    width = max(1, len(values) // 20)
    kernel = np.ones(width)
    weight = np.convolve(np.ones_like(values), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / weight


def new_figure(
    panels: int, height: float = 2.9, left: float = 0.62, width: float = 4.6
) -> tuple[Canvas, NDArray[np.object_]]:
    """A figure with this many axes beside each other; sizes in inches of 72 units of the SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    # A fixed salt keeps the ids inside the SVG, and so the page's bytes, the same every time.
    mpl.rcParams.update(
        {"svg.hashsalt": "sarhpc", "svg.fonttype": "none", "font.size": 9.5,
         "font.family": "sans-serif", "axes.edgecolor": SOFT, "text.color": INK,
         "axes.labelcolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT,
         "axes.linewidth": 0.8, "path.simplify": True}
    )  # fmt: skip
    width = width if panels == 1 else 3.6 * panels
    figure, axes = plt.subplots(1, panels, figsize=(width, height), squeeze=False)
    # Margins for labels of two lines; a layout engine would draw everything twice to find them.
    top = 0.96 if panels == 1 else 0.88
    figure.subplots_adjust(
        left=left / width, right=1 - 0.12 / width, bottom=0.5 / height, top=top, wspace=0.3
    )
    return figure, axes[0]


def label_axis(axis: Axes, title: str, x: str, y: str) -> None:
    """Title, axis labels and grid in the style of the pages."""
    if title:
        axis.set_title(title, fontsize=10, color=INK, loc="left")
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(color=GRID, lw=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(length=3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def svg_text(figure: Any) -> str:
    """The figure as an SVG element for a page, and closes it.

    Colours are variables of `page.css` and texts are text, so that it follows the page into the
    dark and into print. Ids are of this figure alone. What was marked `set:3` has `data-set="3"`.
    """
    from matplotlib import pyplot as plt

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The style of matplotlib's own would hold for the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    text = re.sub(r'id="set:(\d+)"', r'data-set="\1"', text)
    text = text.replace("<svg ", '<svg aria-hidden="true" ', 1)
    return themed(_with_own_ids(re.sub(r"\n\s*", "\n", text)))


def themed(svg: str) -> str:
    """The SVG with colours of the figures as variables of `page.css`."""
    for colour, name in _VARIABLES.items():
        svg = svg.replace(f": {colour}", f": var(--{name}, {colour})")
        svg = svg.replace(f'"{colour}"', f'"var(--{name}, {colour})"')
    return svg


def _with_own_ids(svg: str) -> str:
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
    wanted = {name for pair in used for name in pair if name}
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]
    for name in sorted(wanted):
        svg = re.sub(rf'(id="|url\(#|href="#){re.escape(name)}(?=[")])', rf"\g<1>{own}-{name}", svg)
    return re.sub(r' id="(?!' + own + r'-)[^"]*"', "", svg)
