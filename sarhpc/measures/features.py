"""Features of each tile; those of a set are the means over its tiles.

Tiles are the 8-bit amplitude view of both sides, (N, H, W) uint8 with range along columns: a
generator makes 8-bit images, and a fair comparison gives the real tiles the same quantisation.
Definitions follow the log-cumulant, autocorrelation and spectral measures of the SAR literature
(Vachon & Raney, TGRS 27(6) 1989, for the speckle autocorrelation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

Array = NDArray[np.float64]

DB_EDGES = np.linspace(-45.0, 25.0, 257)
"""Fixed dB histogram: 256 bins whatever the data, so that distances are comparable."""
ENL_EDGES = np.geomspace(0.05, 50.0, 121)
"""Histogram of the local number of looks."""
LAGS = 5
PSD_BINS = 16
LOOK_WINDOW_PX = 9


@dataclass(frozen=True)
class Features:
    """Measures of N tiles, tile by tile along the first axis."""

    histogram: Array
    """(N, 256) fractions of pixels per dB bin."""
    looks: Array
    """(N, 120) fractions of 9x9 windows per bin of local ENL."""
    acf_range: Array
    """(N, 5) autocorrelation of intensity speckle at range lags 1 to 5."""
    acf_azimuth: Array
    """(N, 5) the same along azimuth."""
    psd: Array
    """(N, 256) power spectrum of ln A in 16x16 bins of the frequency plane."""
    mean_db: Array
    """(N,) mean level, dB."""
    clipped: Array
    """(N,) fraction of pixels at 255."""

    def __len__(self) -> int:
        return int(self.mean_db.size)

    def subset(self, index: NDArray[np.int64]) -> Features:
        """The tiles at `index`."""
        return Features(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def measure(tiles: Iterable[NDArray[np.uint8]]) -> Features:
    """Measures of a stack of tiles (N, H, W), or of any tiles one after the other."""
    rows = [_measure_tile(tile) for tile in tiles]
    return Features(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))


def amplitude(tile: NDArray[np.uint8]) -> Array:
    """Amplitude in (0, 1]; code 0 stands for half a quantisation step, so that dB stays finite."""
    return np.maximum(tile.astype(np.float64), 0.5) / 255.0


def _measure_tile(tile: NDArray[np.uint8]) -> Iterator[Array | float]:
    A = amplitude(tile)
    I = A * A  # noqa: E741 - intensity is I in every SAR text
    yield db_histogram(A)
    yield look_histogram(I)
    yield from speckle_acf(I)
    yield spectrum(A)
    yield 10.0 * float(np.log10(I.mean()))
    yield float((tile == 255).mean())


def db_histogram(A: Array) -> Array:
    """Fractions (256,) of pixels per bin of 20 log10 A; what lies outside counts at the ends."""
    db = np.clip(20.0 * np.log10(A), DB_EDGES[0], DB_EDGES[-1] - 1e-9)
    return np.histogram(db, DB_EDGES)[0] / db.size


def look_histogram(I: Array) -> Array:  # noqa: E741
    """Fractions (120,) of 9x9 windows per bin of local ENL = mean^2 / variance."""
    mean = uniform_filter(I, LOOK_WINDOW_PX)
    n = LOOK_WINDOW_PX**2
    variance = np.maximum(uniform_filter(I * I, LOOK_WINDOW_PX) - mean**2, 1e-12) * n / (n - 1)
    enl = np.clip(mean**2 / variance, ENL_EDGES[0], ENL_EDGES[-1] * 0.999)
    return np.histogram(enl, ENL_EDGES)[0] / enl.size


def speckle_acf(I: Array) -> tuple[Array, Array]:  # noqa: E741
    """Autocorrelation of I / localmean(I) - 1 at lags 1 to 5, along range and along azimuth."""
    ratio = I / uniform_filter(I, 15) - 1.0
    ratio = ratio - ratio.mean()
    power = np.abs(np.fft.rfft2(ratio)) ** 2
    acf = np.fft.irfft2(power, s=ratio.shape)
    acf = acf / max(float(acf[0, 0]), 1e-12)
    return acf[0, 1 : LAGS + 1], acf[1 : LAGS + 1, 0]


def spectrum(A: Array) -> Array:
    """Hann-windowed power spectrum (256,) of ln A, averaged in 16x16 bins of the full plane."""
    field = np.log(A)
    window = np.outer(np.hanning(A.shape[0]), np.hanning(A.shape[1]))
    windowed = (field - field.mean()) * window
    power = np.abs(np.fft.fftshift(np.fft.fft2(windowed))) ** 2 / (window**2).sum()
    rows = np.array_split(np.arange(A.shape[0]), PSD_BINS)
    columns = np.array_split(np.arange(A.shape[1]), PSD_BINS)
    pooled = [[power[np.ix_(r, c)].mean() for c in columns] for r in rows]
    return np.array(pooled).ravel()
