"""Decoding pictures (PNG, JPEG and others) that someone else wrote, by an allow-list of formats.

What a picture declares is bounded before it is decoded. No other module decodes pictures
(`tests/unit/house/test_openers.py`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hpc.errors import DataError
from hpc.regular_files import open_regular

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")

MOST_PIXELS = 1 << 28
"""Pixels that a picture may declare."""
FREE_PIXELS = 1 << 24
"""Pixels that a picture of any size in bytes may declare."""
MOST_PIXELS_PER_BYTE = 100
"""Beyond that, pixels per byte of the picture: a picture of a scene has fewer than 20."""

# The limits above are the ones that count; Pillow would warn at a third of them.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS


@contextmanager
def opened_picture(
    source: Path | bytes, formats: tuple[str, ...] = FORMATS
) -> Iterator[Image.Image]:
    """The picture in a file or in bytes, for a block that decodes it.

    Raises:
        DataError: it cannot be decoded, is in none of `formats`, or declares more pixels than it
            can hold.
    """
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file,
            Image.open(file, formats=formats) as image,
        ):
            held = len(source) if isinstance(source, bytes) else source.stat().st_size
            pixels = image.width * image.height
            if pixels > min(MOST_PIXELS, max(FREE_PIXELS, MOST_PIXELS_PER_BYTE * held)):
                raise DataError(
                    f"{held} bytes that declare {image.width} x {image.height} pixels, more than "
                    "they can hold"
                )
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        known = isinstance(error, UnidentifiedImageError)
        raise DataError(f"not a {' or '.join(formats)}" if known else str(error)) from error


def read_picture(path: Path, mode: str) -> NDArray[np.uint8]:
    """Pixels of the picture at `path`, converted to `mode` (`L` or `RGB`).

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        with opened_picture(path) as image:
            return np.asarray(image.convert(mode))
    except DataError as error:
        raise DataError(f"cannot read the picture {path}: {error}") from error
