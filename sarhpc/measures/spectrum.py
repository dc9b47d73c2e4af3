"""E5: power spectrum of ln A, its radial curve, and lines at multiples of 1/8 cycles per pixel.

Spectra are averages over segments of 64 px that overlap by half, with a Hann window (Welch, IEEE
Trans. Audio Electroacoust. 15(2) 1967), so that a tile of any size has a spectrum of the same
resolution, and one of 512 px averages 225 segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import rfft2

from sarhpc.measures.amplitude import Array, log_amplitude

SEGMENT_PX = 64
BINS = 16
"""Rows and columns of the pooled spectrum, each 1/16 cycles per pixel wide."""
RADII = 32
"""Annuli of the radial curve, each 1/64 cycles per pixel wide, up to 0.5."""
PERIOD_PX = 8
"""Factor by which autoencoders of latent diffusion reduce an image; also a block of JPEG."""
LINES = np.arange(1, PERIOD_PX // 2 + 1) * (SEGMENT_PX // PERIOD_PX)
"""Bins of the lines."""
NEIGHBOURS = (2, 3)
"""Bins to either side that tell the continuum; the Hann window spreads a line over +-1 bin."""
LINE_WEIGHTS = np.array([0.3, 0.3, 0.3, 0.1])
"""Inverse variances of the levels: pi^2/6 with two degrees of freedom, pi^2/2 with one."""


def _weights_above() -> Array:
    """Weight of the neighbours above a line, where log power is linear in log frequency."""
    below, above = (np.mean([np.log(LINES + n * side) for n in NEIGHBOURS], 0) for side in (-1, 1))
    weights = (np.log(LINES) - below) / (above - below)
    weights[-1] = 0.5  # above 0.5 cycles per pixel the spectrum is its own mirror image
    return np.asarray(weights)


ABOVE = _weights_above()


@dataclass(frozen=True)
class Spectrum:
    """Spectrum of one tile."""

    pooled: Array
    """(256,) power density of ln A in 16 x 16 bins of the frequency plane, azimuth first, both from
    -0.5 to 0.5 cycles per pixel; white noise of variance v has v in each."""
    radial: Array
    """(32,) power density per annulus of 1/64 cycles per pixel, from 0 to 0.5."""
    lines_db: Array
    """(2, 4) level of the lines at 1/8, 2/8, 3/8, 4/8 cycles per pixel over the continuum, dB:
    row 0 varies along azimuth (horizontal lines of the image), row 1 along range."""


def measure_spectrum(amplitude: NDArray[Any]) -> Spectrum:
    """Spectrum of a tile (H, W) of linear amplitude, at least 64 x 64 px.

    Pixels beyond the last whole half-segment have no part. Lines are 10 log10 of the geometric mean
    over segments of P(line) / P(neighbours): powers of line and continuum have the same law where
    there is no line, so that the ratio is 0 dB without a correction, and a few bright scatterers
    do not decide it.

    Raises:
        ValueError: see `log_amplitude`.
    """
    power = _segment_power(log_amplitude(amplitude, SEGMENT_PX))
    mean = power.mean(0, dtype=np.float64)
    plane = _full_plane(mean)
    width = SEGMENT_PX // BINS
    pooled = np.fft.fftshift(plane).reshape(BINS, width, BINS, width).mean((1, 3)).ravel()
    lines = np.stack([_lines_db(power[:, :, 0]), _lines_db(_range_axis(power))])
    return Spectrum(pooled, radial_curve(plane), lines)


def _segment_power(field: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Periodograms (S, 64, 33) of the segments of a field."""
    step = SEGMENT_PX // 2
    segments = sliding_window_view(field, (SEGMENT_PX, SEGMENT_PX))[::step, ::step]
    line = np.hanning(SEGMENT_PX + 1)[:-1]
    window = np.outer(line, line).astype(np.float32)
    # Row by row: a stack of all segments would not fit the cache of a core.
    return np.concatenate([_periodograms(row.astype(np.float32), window) for row in segments])


def _periodograms(
    segments: NDArray[np.float32], window: NDArray[np.float32]
) -> NDArray[np.floating[Any]]:
    segments -= np.einsum("sij,ij->s", segments, window / window.sum())[:, None, None]
    segments *= window
    spectrum = rfft2(segments)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    power /= np.square(window).sum()
    return np.asarray(power)


def _full_plane(half: Array) -> Array:
    """The whole plane (64, 64) of a half plane (64, 33), zero frequency first."""
    mirrored = np.roll(half[::-1, 1:-1][:, ::-1], 1, axis=0)
    return np.concatenate([half, mirrored], axis=1)


def _range_axis(power: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Power (S, 64) at azimuth frequency 0, by range frequency."""
    half = power[:, 0, :]
    return np.concatenate([half, half[:, -2:0:-1]], axis=1)


def _lines_db(axis: NDArray[np.floating[Any]]) -> Array:
    """Level (4,) of the lines over the continuum on an axis (S, 64) of the spectrum, dB."""
    level = np.log10(np.maximum(axis, np.finfo(np.float32).tiny)).mean(0, dtype=np.float64)
    below, above = (np.mean([level[LINES + n * side] for n in NEIGHBOURS], 0) for side in (-1, 1))
    ratio = level[LINES] - (1.0 - ABOVE) * below - ABOVE * above
    # At 0.5 cycles per pixel the transform is real: its power has one degree of freedom, not two,
    # and the mean of its logarithm is lower by ln 2.
    ratio[-1] += np.log10(2.0)
    return np.asarray(10.0 * ratio)


def radial_curve(plane: Array) -> Array:
    """Mean power density (32,) per annulus of a plane (64, 64) with zero frequency first."""
    frequency = np.fft.fftfreq(SEGMENT_PX)
    radius = np.hypot(frequency[:, None], frequency)
    ring = np.rint(radius * SEGMENT_PX).astype(np.intp).ravel()
    held = (ring >= 1) & (ring <= RADII)
    total = np.bincount(ring[held], plane.ravel()[held], RADII + 1)
    return np.asarray(total[1:] / np.bincount(ring[held], minlength=RADII + 1)[1:])


def log_spectral_distance(generated: Array, real: Array) -> float:
    """10 sqrt(mean (log10 P_G - log10 P_R)^2) over the bins of two spectra, dB.

    Source: Gray & Markel, IEEE Trans. ASSP 24(5) 1976, eq. 4, in decibels.

    Args:
        generated: mean power density over the tiles of the set, (256,) or (32,).
        real: the same of the real set.

    Raises:
        ValueError: other shapes, or power that is not positive.
    """
    if generated.shape != real.shape:
        raise ValueError(f"spectra of {generated.shape} and {real.shape} bins; pass the same kind")
    if not (generated > 0).all() or not (real > 0).all():
        raise ValueError("a bin of a spectrum has no power; pass means of measured spectra")
    difference = np.log10(generated) - np.log10(real)
    return float(10.0 * np.sqrt(np.square(difference).mean()))


def grid_lines_db(lines_db: Array) -> float:
    """Level of the lines over the continuum, dB, of tiles (N, 2, 4) or of one (2, 4); 0 is no grid.

    The mean over tiles, both axes and the four lines, with LINE_WEIGHTS.
    """
    return float((lines_db @ LINE_WEIGHTS).mean())
