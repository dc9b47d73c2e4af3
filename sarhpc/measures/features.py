"""What is measured of each tile, once, by the functions that define each measure.

Distances between sets (`distances`), nulls, the score of checkpoints and the reports of
autoencoders are all functions of these values. Range is along columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.amplitude import Array, checked_amplitude
from sarhpc.measures.levels import measure_levels
from sarhpc.measures.log_cumulants import log_cumulants
from sarhpc.measures.looks import local_enl_histogram
from sarhpc.measures.speckle_correlation import lag_products
from sarhpc.measures.spectrum import SEGMENT_PX, measure_spectrum
from sarhpc.measures.texture import measure_texture

LEAST_PX = 32
"""Fewest rows and columns of a tile; from 64 px on, E5 is measured without mirrored edges."""
TOP_CODE = 255


@dataclass(frozen=True)
class Features:
    """Measures of N tiles, tile by tile along the first axis."""

    local_enl: Array
    """E1: (N, 600) fractions of 9 x 9 px windows per bin of ln ENL (`looks.LN_EDGES`)."""
    log_cumulants: Array
    """E2: (N, 3) k1, k2 and k3 of ln I."""
    histogram: Array
    """E3: (N, 256) fractions of pixels per bin of `levels.LEVEL_EDGES_DB`."""
    percentiles_db: Array
    """E3: (N, 8) levels, dB, at `levels.PERCENTILES`."""
    mean_db: Array
    """E3: (N,) mean level, dB."""
    bright_excess_db: Array
    """E3: (N,) mean of what exceeds the median by more than 18 dB, dB."""
    clipped: Array
    """E3: (N,) fraction of pixels at code 255; 0 where the tile is no 8-bit view."""
    lag_products: Array
    """E4: (N, 2, 7) mean products of pixels, azimuth and range, from which speckle's
    autocorrelation is."""
    spectrum: Array
    """E5: (N, 256) power density of ln A in 16 x 16 bins of the frequency plane."""
    radial: Array
    """E5: (N, 32) the same per annulus of 1/64 cycles per pixel."""
    lines_db: Array
    """E5: (N, 2, 4) level of the lines at multiples of 1/8 cycles per pixel, dB."""
    texture: Array
    """E6: (N, 4, 3, 5) co-occurrence features by direction and distance."""

    def __len__(self) -> int:
        return int(self.mean_db.size)

    def subset(self, index: NDArray[np.int64]) -> Features:
        """The tiles at `index`."""
        return Features(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def measure(tiles: Iterable[NDArray[Any]]) -> Features:
    """Measures of a stack of tiles (N, H, W), or of any tiles one after the other.

    Args:
        tiles: linear amplitude relative to sqrt(sigma0) = 1 or to the top of the picture, floating
            point; or its 8-bit view, unsigned (see `amplitude`). At least 32 x 32 px.

    Raises:
        ValueError: no tiles, or one that is too small, constant, has NaN, negative values, or a gap
            of zeros; the message has its number.
    """
    rows = [_numbered(number, tile) for number, tile in enumerate(tiles)]
    if not rows:
        raise ValueError("there are no tiles to measure: give at least one")
    return join(rows)


def join(parts: Sequence[Features]) -> Features:
    """The tiles of several sets as those of one, in order.

    Raises:
        ValueError: no parts.
    """
    names = Features.__dataclass_fields__
    return Features(*(np.concatenate([getattr(one, name) for one in parts]) for name in names))


def amplitude(tile: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Amplitude of a tile: itself where it is floating point; of 8-bit codes, code / 255.

    Code 0 stands for half a quantisation step, so that it has a level.

    Raises:
        ValueError: integers that are no 8-bit codes.
    """
    if tile.dtype == np.uint8:
        return np.asarray(np.maximum(tile, 0.5, dtype=np.float64) / TOP_CODE)
    if tile.dtype.kind in "iu":
        raise ValueError(
            f"the tile has integers of type {tile.dtype}; decode them to linear amplitude first"
        )
    return tile


def _numbered(number: int, tile: NDArray[Any]) -> Features:
    try:
        return _measure_tile(tile)
    except ValueError as error:
        raise ValueError(f"tile {number}: {error}") from error


def _measure_tile(tile: NDArray[Any]) -> Features:
    A = checked_amplitude(amplitude(tile), LEAST_PX)
    I = np.square(A, dtype=np.float64)  # noqa: E741 - intensity is I in every SAR text
    levels = measure_levels(A)
    cumulants = log_cumulants(_positive(I))
    spectrum = measure_spectrum(_extended(A))
    clipped = float((tile == TOP_CODE).mean()) if tile.dtype == np.uint8 else 0.0
    found = (
        local_enl_histogram(I),
        (cumulants.k1, cumulants.k2, cumulants.k3),
        levels.histogram,
        levels.percentiles_db,
        levels.mean_db,
        levels.bright_excess_db,
        clipped,
        lag_products(I),
        spectrum.pooled,
        spectrum.radial,
        spectrum.lines_db,
        measure_texture(A),
    )
    return Features(*(np.asarray(value, np.float64)[None] for value in found))


def _positive(I: Array) -> Array:  # noqa: E741
    """Intensity whose zeros count as a quarter of the least other value, as code 0 does."""
    if I.min() > 0:
        return I
    return np.asarray(np.maximum(I, I[I > 0].min() / 4.0))


def _extended(A: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The tile; a side shorter than a segment of the spectrum continues as its mirror image."""
    missing = [(0, max(0, SEGMENT_PX - side)) for side in A.shape]
    return np.pad(A, missing, mode="symmetric") if any(map(sum, missing)) else A
