"""Pixels of third-party images: decoded, cut, turned, and encoded with a master."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpc.errors import DataError
from sarhpc.shards.foreign import ForeignSample
from sarhpc.shards.images import decode_array, decode_rgb8, encode_array, encode_gray8, encode_rgb8
from sarhpc.shards.pictures import opened_picture
from sarhpc.shards.radiometry import Normalisation, encode_master
from sarhpc.tiling.orientation import Orientation

Cut = tuple[slice, slice]
"""Rows and columns of a tile in the image as it was found."""

_GRAY_SPREAD = 16
"""Largest difference between channels, in codes, that JPEG makes of a gray image."""


def decoded_image(foreign: ForeignSample, quantity: str | None = None) -> NDArray[Any]:
    """Pixels (H, W) uint8, uint16, float32 or complex64, or (H, W, 3) uint8.

    What has more than 8 bits is amplitude afterwards, whatever quantity was stored.

    Args:
        foreign: the image as it was found.
        quantity: what pixels of more than 8 bits are: `amplitude`, `intensity`, `db`; None is
            amplitude.

    Raises:
        DataError: it cannot be decoded, or holds values that the quantity cannot have.
    """
    if foreign.kind == "sar.npy":
        return decoded_complex(foreign.image)
    try:
        with opened_picture(foreign.image) as image:
            if image.mode[0] in "IF":
                return _amplitude(np.asarray(image), quantity)
            gray = image.mode in ("1", "L", "LA")
            return np.asarray(image.convert("L" if gray else "RGB"))
    except DataError as error:
        raise DataError(f"not a picture that can be read ({error})") from error


def decoded_complex(data: bytes) -> NDArray[np.complex64]:
    """The field (H, W) in npy bytes.

    Raises:
        DataError: it is not finite complex64 of two dimensions.
    """
    field = decode_array(data)
    if field.dtype != np.complex64 or field.ndim != 2 or not np.isfinite(field).all():
        raise DataError(f"sar.npy is {field.dtype} {field.shape}, not finite complex64 (H, W)")
    return field


def _amplitude(stored: NDArray[Any], quantity: str | None) -> NDArray[Any]:
    """Amplitude (H, W), uint16 where it was stored so, else float32."""
    if not np.isfinite(stored).all():
        bad = stored.size - int(np.count_nonzero(np.isfinite(stored)))
        raise DataError(f"{bad} of {stored.size} pixels are NaN or infinite")
    if quantity == "db":
        return np.power(10.0, stored.astype(np.float64) / 20).astype(np.float32)
    if stored.min() < 0:
        negative = int(np.count_nonzero(stored < 0))
        raise DataError(
            f"{negative} of {stored.size} pixels are negative, and no amplitude is; set "
            "imported.quantity=db if they are decibels"
        )
    if quantity == "intensity":
        return np.asarray(np.sqrt(stored, dtype=np.float32))
    whole = stored.dtype.kind in "iu"
    if whole and stored.max() > 65535:
        raise DataError("values beyond 16 bits")
    return stored.astype(np.uint16 if whole else np.float32)


def gray_image(pixels: NDArray[Any], colour: str) -> NDArray[Any] | None:
    """One channel (H, W); None for a coloured image that is rejected."""
    if pixels.ndim == 2:
        return pixels
    spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    if colour == "reject" and int(spread.max()) > _GRAY_SPREAD:
        return None
    # The green channel weighs most; equal channels come out as they are.
    return np.asarray(Image.fromarray(pixels).convert("L"))


def cuts_of(shape: Sequence[int], px: int | None, cut: str) -> list[Cut]:
    """Where tiles of `px` pixels are cut from an image (H, W); none if it is smaller.

    `centre` takes the middle, `grid` as many as fit side by side, around the middle; without `px`
    the whole image is one.
    """
    if px is None:
        return [(slice(0, shape[0]), slice(0, shape[1]))]
    if min(shape) < px:
        return []
    counts = [side // px if cut == "grid" else 1 for side in shape[:2]]
    starts = [
        [(side - count * px) // 2 + px * number for number in range(count)]
        for side, count in zip(shape, counts, strict=False)
    ]
    return [(slice(row, row + px), slice(col, col + px)) for row in starts[0] for col in starts[1]]


def encoded_pictures(
    pixels: NDArray[Any], law: Normalisation | None = None
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Members of an image, and how its 8-bit picture was derived from more bits.

    Args:
        pixels: uint8, or amplitude of more bits, or complex (H, W).
        law: the normalisation of the set; None takes one of this image alone.
    """
    if pixels.dtype == np.uint8:
        return {"sar.png": encode_gray8(pixels)}, {}
    amplitude = np.abs(pixels).astype(np.float32)
    if law is None:
        mu, sigma = float(amplitude.mean(dtype=np.float64)), float(amplitude.std(dtype=np.float64))
        law = Normalisation("mu+3sigma", mu, sigma, mu + 3 * sigma)
    codes, scale = (pixels, 1.0) if pixels.dtype == np.uint16 else encode_master(amplitude)
    members = {"sar.png": encode_gray8(law.encode(amplitude)), "sar16.npy": encode_array(codes)}
    return members, {"normalisation": law.to_json(), "master_scale": scale}


def encoded_layer(
    name: str, data: bytes, shape: Sequence[int], cut: Cut, turn: Orientation
) -> bytes | None:
    """A layer in the pixels of a tile; None for one of another size than its image.

    Raises:
        DataError: it cannot be decoded.
    """
    if name == "sicd.xml":
        return data
    if name == "optic.png":
        rgb = decode_rgb8(data)
        if rgb.shape[:2] != tuple(shape):
            return None
        turned = np.stack([turn.apply(channel) for channel in np.moveaxis(rgb[cut], -1, 0)], -1)
        return encode_rgb8(np.ascontiguousarray(turned))
    array = decoded_complex(data) if name == "sar.npy" else decode_array(data)
    if array.shape[-2:] != tuple(shape) or (name == "landcover.npy" and array.dtype != np.uint8):
        return None
    tile = array[..., *cut]
    planes = tile.reshape(-1, *tile.shape[-2:])
    turned = np.stack([turn.apply(plane) for plane in planes])
    return encode_array(np.ascontiguousarray(turned.reshape(*tile.shape[:-2], *turned.shape[-2:])))
