"""Fingerprints of tiles: an exact digest of the pixels, and a hash of the ground.

The digest covers the amplitude. The perceptual hash covers the ground alone: intensity is averaged
until speckle is a fraction of a decibel, and only the signs of the lowest frequencies of its
logarithm are kept, so that gain and offset of the radar have no effect.
"""

from __future__ import annotations

import hashlib

import numpy as np
import scipy.fft
from numpy.typing import NDArray

HASH_BITS = 64
NEAR_BITS = 10
"""Differing bits up to which two hashes count as the same ground. Unrelated tiles differ in 32 of
64 on average, with a deviation of 4, so that one pair in a hundred million comes this near by
chance; new speckle on the same ground changes 0 to 5."""

_CELLS = 32
"""Averages along each side of a tile: 16 x 16 pixels of a 512 tile, 256 looks and more."""

_MODES = 9
_LEAST_STRUCTURE_DB = 0.5
"""Deviation of the averages below which a tile (calm water, one field) has no structure."""

_FLOOR = 1e-6


def content_digest(amplitude: NDArray[np.float32], valid: NDArray[np.bool_]) -> str:
    """32 hex digits that two tiles share exactly if amplitude (H, W) and validity are the same."""
    digest = hashlib.blake2b(np.ascontiguousarray(amplitude).tobytes(), digest_size=16)
    digest.update(np.packbits(valid).tobytes())
    digest.update(repr(amplitude.shape).encode())
    return digest.hexdigest()


def ground_hash(amplitude: NDArray[np.float32], valid: NDArray[np.bool_]) -> str | None:
    """16 hex digits of the ground a tile (H, W) shows; None for one without structure.

    Signs of the 64 slowest cosine coefficients of log intensity, the mean left out (the "pHash" of
    Zauner, 2010, with its medium resolution taken by averaging looks).
    """
    level = _levels_db(amplitude, valid)
    if level is None or level.std() < _LEAST_STRUCTURE_DB:
        return None
    spectrum = scipy.fft.dctn(level - level.mean(), norm="ortho")[:_MODES, :_MODES]
    # Lowest frequency first; equal frequencies in a fixed order.
    row, col = np.indices(spectrum.shape)
    order = np.lexsort((col.ravel(), (row**2 + col**2).ravel()))[1 : HASH_BITS + 1]
    bits = spectrum.ravel()[order] > 0
    return np.packbits(bits).tobytes().hex()


def _levels_db(
    amplitude: NDArray[np.float32], valid: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """Mean intensity of cells (32, 32), dB; gaps take the mean of the tile."""
    side = min(amplitude.shape) // _CELLS
    if side == 0 or not valid.any():
        return None
    edge = (_CELLS * side, _CELLS * side)
    boxes = (_CELLS, side, _CELLS, side)
    power = np.where(valid, np.square(amplitude, dtype=np.float64), 0)[: edge[0], : edge[1]]
    share = valid[: edge[0], : edge[1]].reshape(boxes).mean(axis=(1, 3))
    mean = power.reshape(boxes).mean(axis=(1, 3)) / np.maximum(share, 1e-9)
    known = share > 0.5
    if not known.any():
        return None
    overall = mean[known].mean()
    mean[~known] = overall
    return np.asarray(10 * np.log10(np.maximum(mean, _FLOOR * max(overall, 1e-30))), np.float64)
