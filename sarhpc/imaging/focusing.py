"""From mean power to a focused complex image: speckle, points, impulse response, noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Complex = NDArray[np.complex64]
Field = NDArray[np.float32]


def taylor_weights(frequency: NDArray[np.float64], band: float, sidelobe_db: float) -> Field:
    """Taylor weighting (nbar = 4) at `frequency` (cycles/sample), zero outside +-`band`/2.

    W(f) = 1 + 2 sum F_m cos(2 pi m f / band), Taylor (1955); not yet normalised.
    """
    nbar = 4
    a = math.acosh(10 ** (sidelobe_db / 20)) / math.pi
    widening = nbar**2 / (a**2 + (nbar - 0.5) ** 2)
    weights = np.ones_like(frequency)
    for m in range(1, nbar):
        top = math.prod(1 - m**2 / widening / (a**2 + (n - 0.5) ** 2) for n in range(1, nbar))
        bottom = math.prod(1 - m**2 / n**2 for n in range(1, nbar) if n != m)
        coefficient = (-1) ** (m + 1) * top / (2 * bottom)
        weights += 2 * coefficient * np.cos(2 * math.pi * m * frequency / band)
    return np.where(np.abs(frequency) <= band / 2, weights, 0.0).astype(np.float32)


def unit_noise_response(count: int, band: float, sidelobe_db: float) -> Field:
    """Frequency response (count,) of one axis that leaves the power of white noise as it is."""
    weights = taylor_weights(fft.fftfreq(count), band, sidelobe_db)
    return weights / np.float32(np.sqrt(np.mean(weights.astype(np.float64) ** 2)))


def impulse_response(field: Complex, band: float, sidelobe_db: float) -> Complex:
    """`field` (H, W) seen through the sensor's impulse response, circular at the borders.

    The response is separable, has unit noise gain (E|s|^2 = sigma0 is kept) and cuts the band
    sharply, as a processor that weights the spectrum does (Raney and Wessels 1988).
    """
    spectrum = fft.fft2(field, overwrite_x=True)
    spectrum *= unit_noise_response(field.shape[0], band, sidelobe_db)[:, None]
    spectrum *= unit_noise_response(field.shape[1], band, sidelobe_db)[None, :]
    return fft.ifft2(spectrum, overwrite_x=True)


def circular_gaussian(rng: np.random.Generator, shape: tuple[int, int]) -> Complex:
    """Circular complex Gaussian noise (H, W) of unit mean power: fully developed speckle."""
    parts = rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(math.sqrt(0.5))
    return parts.view(np.complex64)[..., 0]


def add_points(
    field: Complex,
    row: NDArray[np.float64],
    column: NDArray[np.float64],
    rcs_m2: NDArray[np.float64],
    phase: NDArray[np.float64],
    pixel_area_m2: float,
) -> None:
    """Add point scatterers before focusing: an energy of RCS / pixel area at the nearest pixel.

    After a response of unit noise gain, sum |s|^2 times the pixel area is the RCS: the integral
    method of calibration (Gray et al. 1990) holds.
    """
    r, c = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)
    inside = (r >= 0) & (r < field.shape[0]) & (c >= 0) & (c < field.shape[1])
    value = np.sqrt(rcs_m2 / pixel_area_m2) * np.exp(1j * phase)
    np.add.at(field, (r[inside], c[inside]), value[inside].astype(np.complex64))


def resolution_px(band: float, sidelobe_db: float) -> float:
    """Width of the impulse response at half power (IRW), in pixels."""
    frequency = (np.arange(400) + 0.5) / 800 * band
    weights = taylor_weights(frequency, band, sidelobe_db).astype(np.float64)
    offset = np.linspace(0.0, 2.0 / band, 400)
    response = np.cos(2 * math.pi * offset[:, None] * frequency) @ weights
    return float(2 * np.interp(-0.5, -((response / response[0]) ** 2)[:200], offset[:200]))
