"""Shared by all pages: the template environment, the style, tiles as they are shown."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from numpy.typing import NDArray
from PIL import Image

from sarhpc.evaluation.figures import png_uri
from sarhpc.evaluation.headline import grade_of

TILE_PX = 192
HERE = Path(__file__).parent


@functools.cache
def page_environment(side_px: int | None = None) -> Environment:
    """The template environment of this folder: autoescaping, with the filters of the pages.

    Args:
        side_px: most pixels on a side of a picture, of which larger ones have their middle shown;
            None shows all of it, and small ones enlarged.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    if side_px is None:
        environment.filters["picture"] = lambda image: png_uri(image, TILE_PX)
    else:
        environment.filters["picture"] = lambda image: png_uri(middle(image, side_px))
    environment.filters["shown_px"] = lambda image: middle(image, side_px or TILE_PX).shape[1]
    environment.filters["small_picture"] = lambda image: png_uri(small(image))
    environment.filters["number"] = number
    environment.filters["decibels"] = lambda value: f"{round(value, 1) + 0.0:.1f}"
    environment.filters["item"] = lambda mapping, key: mapping[key]
    environment.filters["size"] = size
    environment.filters["grade"] = grade_of
    environment.filters["heat"] = lambda value: _above(abs(value), (0.25, 0.5, 1.0))
    environment.filters["power_heat"] = lambda value: _above(value, (0.05, 0.5, 0.8))
    return environment


def script() -> str:
    """The script of the report; the page is whole without it."""
    return (HERE / "page.js").read_text()


def policy() -> str:
    """Content security policy of the report: its own script, by digest, and nothing from outside.

    What a caption or an id may hold is text; were it taken for a script, it would not run.
    """
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _above(value: float, bounds: tuple[float, ...]) -> int:
    """How many of the bounds a value reaches."""
    return sum(value >= bound for bound in bounds)


def number(value: float | None) -> str:
    """Three significant digits, without an exponent where that reads well; empty for None."""
    if value is None:
        return ""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def size(count: float) -> str:
    """A number of bytes in the unit that reads well."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def middle(image: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    """The middle of an image (H, W) or (H, W, 3), at most `px` on a side: every pixel as it is."""
    row, column = (max(0, (side - px) // 2) for side in image.shape[:2])
    return image[row : row + px, column : column + px]


def small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W) or (H, W, 3) for the grid of validation images."""
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = image[..., 0]
    return radar_thumbnail(image) if image.ndim == 2 else colour_thumbnail(image)


def radar_thumbnail(tile: NDArray[np.uint8], px: int = TILE_PX) -> NDArray[np.uint8]:
    """The tile (H, W) no larger than `px`, by averaging intensity, which keeps its level."""
    if max(tile.shape) <= px:
        return tile
    intensity = Image.fromarray(np.square(tile, dtype=np.float32))
    return np.sqrt(_shrunk(intensity, px)).round().clip(0, 255).astype(np.uint8)


def colour_thumbnail(image: NDArray[np.uint8], px: int = TILE_PX) -> NDArray[np.uint8]:
    """The image (H, W, 3) no larger than `px`."""
    if max(image.shape[:2]) <= px:
        return image
    return _shrunk(Image.fromarray(image), px)


def _shrunk(image: Image.Image, px: int) -> NDArray[np.uint8]:
    factor = px / max(image.size)
    width, height = (max(round(side * factor), 1) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))
