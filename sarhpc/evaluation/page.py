"""Shared by all pages: the template environment, the style, thumbnails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from numpy.typing import NDArray
from PIL import Image

from sarhpc.evaluation.figures import png_uri
from sarhpc.evaluation.set_facts import LINEAR_LAWS

TILE_PX = 192


def page_environment() -> Environment:
    """The template environment of this folder: autoescaping, with the filters of the pages."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = lambda image: png_uri(image, TILE_PX)
    environment.filters["number"] = number
    environment.filters["size"] = size
    return environment


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


def displayed(codes: NDArray[np.uint8], meta: Mapping[str, Any]) -> NDArray[np.uint8]:
    """8-bit codes (H, W) as they are shown, by the law of the picture in `meta`.

    Codes of a logarithm are shown as they are, those of amplitude with the square-root stretch
    usual for SAR images.
    """
    law = meta.get("normalisation")
    if isinstance(law, Mapping) and law.get("mode") not in LINEAR_LAWS:
        return codes
    return np.round(255.0 * np.sqrt(codes / 255.0)).astype(np.uint8)


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
