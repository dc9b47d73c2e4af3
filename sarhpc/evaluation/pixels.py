"""Pixels of an image that are measured: linear amplitude with its range, or 8-bit codes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.evaluation.image_sets import ARRAYS, Image
from sarhpc.evaluation.set_facts import AMPLITUDE, LINEAR_LAWS, RAW_CODES, pictures
from sarhpc.shards.images import decode_array, decode_gray8
from sarhpc.shards.pictures import opened_picture
from sarhpc.shards.radiometry import (
    LEVEL_MASTER,
    Normalisation,
    decode_levels,
    level_floor,
    master_amplitude,
)

Pixels = NDArray[np.floating[Any]] | NDArray[np.uint8]
"""(H, W): linear amplitude, or codes that are proportional to it."""

_GRAY_SPREAD = 16
"""Largest difference between channels, in codes, that JPEG makes of a gray image."""


def amplitude_member(names: Collection[str]) -> list[str]:
    """The member with the most range."""
    return [name for name in (*ARRAYS, *pictures(names)) if name in names][:1]


def code_member(names: Collection[str]) -> list[str]:
    """The 8-bit picture, or what it is made of where there is none."""
    found = [name for name in pictures(names) if name not in ARRAYS]
    return (found or amplitude_member(names))[:1]


def measured_pixels(
    image: Image, pixels: str, px: Sequence[int], scale: float | None = None
) -> Pixels:
    """The middle `px` rows and columns of an image, as amplitude or as codes.

    Args:
        image: with the bytes of the member that is wanted.
        pixels: one of `PIXELS`.
        px: rows and columns.
        scale: amplitude that becomes 1, and code 255; None where the image has a full scale.

    Raises:
        DataError: it cannot be decoded, is coloured, or has fewer pixels.
    """
    with _named(image):
        if pixels == AMPLITUDE:
            whole: Pixels = amplitude(image)
        else:
            whole = codes(image, scale, decoded=pixels != RAW_CODES)
    if whole.ndim != 2 or whole.shape[0] < px[0] or whole.shape[1] < px[1]:
        raise DataError(
            f"image {image.key} of {image.file} is {' x '.join(map(str, whole.shape))}, smaller "
            f"than the {px[0]} x {px[1]} px of the others: give images of one size"
        )
    row, col = ((side - want) // 2 for side, want in zip(whole.shape, px, strict=True))
    middle = whole[row : row + px[0], col : col + px[1]]
    return middle / np.float32(scale) if scale and pixels == AMPLITUDE else middle


@contextmanager
def _named(image: Image) -> Iterator[None]:
    """Name the image in errors of a block that decodes it."""
    try:
        yield
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"image {image.key} of {image.file} cannot be read: {error}") from error


def mean_3_sigma(images: Iterable[Image]) -> float:
    """Mean + 3 standard deviations of the amplitude of images, one at a time in memory.

    Raises:
        DataError: an image cannot be decoded, or no amplitude is positive.
    """
    count, total, squares, name = 0, 0.0, 0.0, "the set"
    for image in images:
        with _named(image):
            values = amplitude(image)
        finite = values[np.isfinite(values)].astype(np.float64)
        count, total, name = count + finite.size, total + float(finite.sum()), image.file
        squares += float(np.square(finite).sum())
    mean = total / max(count, 1)
    scale = mean + 3 * math.sqrt(max(squares / max(count, 1) - mean**2, 0.0))
    if not scale > 0:
        raise DataError(f"{name} and others have no positive amplitude: give linear amplitude")
    return scale


def amplitude(image: Image) -> NDArray[np.floating[Any]]:
    """Amplitude (H, W): relative to code 255 of the picture where that is known."""
    [name] = amplitude_member(image.members)
    data = image.members[name]
    if name == "sar16.npy":
        return _master(decode_array(data), image.meta)
    values = decode_array(data) if name in ARRAYS else _picture(data)
    if values.dtype.kind not in "uifc":
        raise DataError(f"{name} is of {values.dtype}, not numbers")
    return np.abs(values) if values.dtype.kind == "c" else values.astype(np.float64)


def codes(image: Image, scale: float | None, *, decoded: bool = True) -> Pixels:
    """8-bit codes (H, W), or amplitude relative to code 255 where their law is not linear.

    Not `decoded`, they are the codes whatever their law.
    """
    [name] = code_member(image.members)
    if name in ARRAYS:
        level = amplitude(image) / (scale or 1.0)
        if not np.isfinite(level).all():
            return level
        quantised: NDArray[np.uint8] = np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8)
        return quantised
    data = image.members[name]
    values = decode_gray8(data) if name == "sar.png" else _picture(data)
    if values.dtype != np.uint8:
        raise DataError(f"{name} holds {values.dtype}, not 8 bits as the others")
    law = image.meta.get("normalisation")
    if decoded and isinstance(law, Mapping) and law.get("mode") not in LINEAR_LAWS:
        return level_amplitude(values / np.float32(255), image.meta)
    return values


def picture_format(image: Image) -> tuple[tuple[int, int], bool]:
    """Rows and columns of an image, and whether its picture holds more than 8 bits."""
    [name] = code_member(image.members)
    data = image.members[name]
    with _named(image):
        if name in ARRAYS:
            rows, cols = decode_array(data).shape[-2:]
            return (int(rows), int(cols)), False
        with opened_picture(data) as picture:
            return (picture.height, picture.width), picture.mode[0] in "IF"


def _master(master: NDArray[Any], meta: Mapping[str, Any]) -> NDArray[np.floating[Any]]:
    """Amplitude of a 16-bit master; a tile's code 0 stands for half of its least amplitude."""
    if master.dtype != np.uint16:
        raise DataError(f"sar16.npy is of {master.dtype}, not uint16")
    law = meta.get("normalisation")
    known = Normalisation.from_json(law) if isinstance(law, Mapping) else None
    if meta.get("master_law") == LEVEL_MASTER:
        return level_amplitude(decode_levels(master), meta)
    values = master_amplitude(master, meta)
    if not values.all() and values.any():
        values = np.maximum(values, values[values > 0].min() / 2)
    return values if known is None else values / np.float32(known.top)


def level_amplitude(
    level: NDArray[np.floating[Any]], meta: Mapping[str, Any]
) -> NDArray[np.floating[Any]]:
    """Amplitude relative to code 255 of levels between 0 and 1 of the law of a picture.

    Where level 0 is zero amplitude, lower ones stand for `LEVEL_FLOOR`, as in masters with a floor.
    """
    law = meta.get("normalisation")
    floor = level_floor(str(law.get("mode")) if isinstance(law, Mapping) else "")
    level = level if floor is None else np.maximum(level, level.dtype.type(floor))
    if not isinstance(law, Mapping) or law.get("mode") in LINEAR_LAWS:
        return level
    known = Normalisation.from_json(law)
    return known.amplitudes(level.astype(np.float32)) / np.float32(known.top)


def _picture(data: bytes) -> NDArray[Any]:
    with opened_picture(data) as picture:
        pixels = np.asarray(picture)
    if pixels.ndim == 3:
        spread = pixels[..., :3].max(axis=2).astype(np.int16) - pixels[..., :3].min(axis=2)
        if int(spread.max()) > _GRAY_SPREAD:
            raise DataError("it is coloured; a radar image has one channel")
        return pixels[..., min(1, pixels.shape[2] - 1)]
    return pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels


def fault_of(pixels: Pixels) -> str | None:
    """Why pixels cannot be measured: NaN, negative, or of one value; None if they can."""
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        bad = int(pixels.size - np.isfinite(pixels).sum())
        return f"{bad} of {pixels.size} pixels are NaN or infinite"
    if low < 0:
        return f"{int((pixels < 0).sum())} pixels are negative: give linear amplitude, not dB"
    return f"every pixel is {low:g}" if high - low <= 1e-9 * high else None
