"""A hand-drawn sketch as the layer `edges` of an image: white lines on black."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hpc.errors import DataError
from sarhpc.generation.controls.svg import rasterise_svg
from sarhpc.shards.pictures import opened_picture

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".svg")

LINE_PX = 3
"""Width of a line in the layers that ControlNets learn from, px of the image."""

FAINTEST = 16
"""Least grey of a line; fainter ones are taken for the paper's."""

MOST_SIDE_PX = 8192
"""Largest side of a drawing."""

_SVG_DETAIL = 4
_PAPER = 64
_COLOUR = 8
_SHAPE_TOLERANCE = 0.01


def drawn_layer(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    """The drawing as a layer (height, width), 255 where its lines are strongest and 0 on paper.

    Dark lines on light paper and light lines on dark paper are both understood: the paper is what
    most of the drawing is. Where it is transparent, white paper shows. A drawing of another size
    and the same shape is fitted: each pixel takes the strongest ink that falls into it, and lines
    thinner than three pixels become three pixels wide. A layer `edges.png` of a tile stays as it
    is.

    Raises:
        DataError: it cannot be read, is in colour, of another shape, or has no lines.
    """
    grey = _grey(path, height, width)
    rows, columns = grey.shape
    if abs(rows * width - columns * height) > _SHAPE_TOLERANCE * rows * width:
        raise DataError(
            f"{path} is {columns} x {rows} px and the images are {width} x {height} px: draw it in "
            "that shape, or make images of its shape"
        )
    return _with_wide_lines(_fitted(_ink(grey, path), height, width))


def _grey(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    """The drawing on white paper (H, W)."""
    if path.suffix.lower() == ".svg":
        return _decoded(rasterise_svg(path, width * _SVG_DETAIL, height * _SVG_DETAIL), path)
    return _decoded(path, path)


def _decoded(source: Path | bytes, path: Path) -> NDArray[np.uint8]:
    try:
        with opened_picture(source, ("PNG",)) as picture:
            _require_drawable(picture)
            pixels = np.asarray(picture.convert("RGBA"), np.float32)
    except DataError as error:
        raise DataError(f"cannot read the drawing {path}: {error}") from error
    opacity = pixels[..., 3:] / 255
    seen = pixels[..., :3] * opacity + 255 * (1 - opacity)
    if float(np.ptp(seen, axis=2).max()) > _COLOUR:
        raise DataError(
            f"{path} is in colour: draw in black, white and grey, whose strength is that of the "
            "edge, or convert it to greyscale"
        )
    return np.asarray(np.rint(seen.mean(axis=2)), np.uint8)


def _require_drawable(picture: Image) -> None:
    if max(picture.size) > MOST_SIDE_PX:
        raise DataError(f"more than {MOST_SIDE_PX} px to a side; scale it down")
    if picture.mode.startswith(("I", "F")):
        raise DataError("it has more than 8 bits a pixel; save it with 8")
    if getattr(picture, "n_frames", 1) > 1:
        raise DataError("it is an animation; save one picture of it")


def _ink(grey: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """How much each pixel differs from the paper, whichever is the darker."""
    paper = float(np.median(grey))
    if _PAPER < paper < 255 - _PAPER:
        raise DataError(
            f"{path}: most of it is grey ({paper:g} of 255), which is neither paper nor line; "
            "draw dark lines on white, or light ones on black"
        )
    ink = 255 - grey if paper > 127 else grey
    ink = np.where(ink < FAINTEST, 0, ink).astype(np.uint8)
    if not ink.any():
        raise DataError(f"{path} has no lines: all of it is {'white' if paper > 127 else 'black'}")
    return ink


def _fitted(ink: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The drawing at (height, width): the strongest ink within each pixel."""
    rows, columns = ink.shape
    if (rows, columns) == (height, width):
        return ink
    if rows < height or columns < width:
        larger = np.arange(height) * rows // height, np.arange(width) * columns // width
        return np.ascontiguousarray(ink[np.ix_(*larger)])
    down = np.maximum.reduceat(ink, np.arange(height) * rows // height, axis=0)
    return np.maximum.reduceat(down, np.arange(width) * columns // width, axis=1)


def _with_wide_lines(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The ink with what is thinner than `LINE_PX` widened to it; wider lines stay as they are."""
    size = (LINE_PX, LINE_PX)
    thin = ink - np.asarray(ndimage.grey_opening(ink, size=size), np.uint8)
    return np.maximum(ink, np.asarray(ndimage.grey_dilation(thin, size=size), np.uint8))
