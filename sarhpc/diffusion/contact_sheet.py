"""One figure of many generated images, for visual inspection of a model."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_LABEL_PX = 160
_TITLE_PX = 18
_GAP_PX = 4
_LETTERS = 24


def contact_sheet(
    images: NDArray[np.uint8], prompts: Sequence[str], titles: Sequence[str]
) -> Image.Image:
    """Images (P, S, H, W) or (P, S, H, W, 3), rows labelled by prompts, columns by titles.

    Its first line states that the images are synthetic.
    """
    rows, across, height, width = images.shape[:4]
    line = max(height, 2 * _TITLE_PX)
    size = (
        _LABEL_PX + across * (width + _GAP_PX),
        2 * _TITLE_PX + rows * (line + _GAP_PX),
    )
    colours = images.ndim == 5
    picture = Image.new("RGB", size, (255, 255, 255)) if colours else Image.new("L", size, 255)
    black = (0, 0, 0) if colours else 0
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    pen.text((_GAP_PX, 2), "Synthetic images", fill=black, font=font)
    for column, title in enumerate(titles):
        left = _LABEL_PX + column * (width + _GAP_PX)
        pen.text((left, _TITLE_PX), title, fill=black, font=font)
        for row in range(rows):
            top = 2 * _TITLE_PX + row * (line + _GAP_PX)
            picture.paste(Image.fromarray(images[row, column]), (left, top))
    for row, prompt in enumerate(prompts):
        top = 2 * _TITLE_PX + row * (line + _GAP_PX)
        pen.multiline_text((_GAP_PX, top), textwrap.fill(prompt, _LETTERS), fill=black, font=font)
    return picture
