"""Fully developed speckle of known looks and band: Taylor weighting, nbar 4, -30 dB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sarhpc.imaging.focusing import circular_gaussian, unit_noise_response
from sarhpc.measures.speckle_correlation import autocorrelation_of_band

Array = NDArray[np.float64]
SIDELOBE_DB = 30.0


def speckle(
    rng: np.random.Generator,
    side: int = 512,
    looks: int = 1,
    bands: tuple[float, float] = (0.8, 0.8),
) -> Array:
    """Intensity (side, side) of unit mean; `bands` are fractions of azimuth and range."""
    azimuth, range_ = (unit_noise_response(side, band, SIDELOBE_DB) for band in bands)
    total = np.zeros((side, side))
    for _ in range(looks):
        spectrum = np.fft.fft2(circular_gaussian(rng, (side, side))) * np.outer(azimuth, range_)
        total += np.abs(np.fft.ifft2(spectrum)) ** 2
    return total / looks


def theory(bands: tuple[float, float] = (0.8, 0.8), side: int = 4096) -> Array:
    """Autocorrelation (2, 5) of the intensity of that speckle."""
    weights = (unit_noise_response(side, band, SIDELOBE_DB) for band in bands)
    return np.array([autocorrelation_of_band(axis) for axis in weights])
