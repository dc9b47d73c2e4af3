"""Distances E1, E3, E4 and E5 between SAR tiles and their reconstructions by an autoencoder.

No generator behind this autoencoder can be closer to real tiles than its reconstructions are. The
floor is computed for tiles A/(mu + 3 sigma) in 8 bits, amplitude relative to full scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]

DB_EDGES = np.linspace(-45.0, 25.0, 257)


def decibels(tile: NDArray[np.uint8]) -> Floats:
    """Intensity (H, W) in dB relative to full scale; code 0 counts as half a code."""
    amplitude: Floats = np.maximum(tile.astype(np.float64), 0.5) / 255
    return 20 * np.log10(amplitude)


def local_enl(tile: NDArray[np.uint8], box: int = 9) -> Floats:
    """ENL = mean(I)^2 / var(I) in every `box` x `box` window wholly inside the tile, flattened."""
    intensity = (tile.astype(np.float64) / 255) ** 2
    mean = ndimage.uniform_filter(intensity, box)
    variance = ndimage.uniform_filter(intensity**2, box) - mean**2
    half = box // 2
    inside = (slice(half, -half), slice(half, -half))
    enl: Floats = (mean[inside] ** 2 / np.maximum(variance[inside], 1e-12)).ravel()
    return enl


def enl_mode(tiles: Sequence[NDArray[np.uint8]]) -> float:
    """Mode of the local 9 x 9 ENL over all tiles (E1)."""
    values = np.concatenate([local_enl(tile) for tile in tiles])
    counts, edges = np.histogram(values, bins=np.linspace(0, 12, 241))
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), 2)
    return float(edges[int(smooth.argmax())] + (edges[1] - edges[0]) / 2)


def histogram_distances(
    real: Sequence[NDArray[np.uint8]], fake: Sequence[NDArray[np.uint8]]
) -> tuple[float, float]:
    """Jensen-Shannon divergence (bits) and Wasserstein-1 distance (dB) of dB histograms (E3)."""
    p, q = _density(real), _density(fake)
    middle = (p + q) / 2
    jsd = (_divergence(p, middle) + _divergence(q, middle)) / 2
    w1 = np.abs(np.cumsum(p - q)).sum() * (DB_EDGES[1] - DB_EDGES[0])
    return float(jsd), float(w1)


def _density(tiles: Sequence[NDArray[np.uint8]]) -> Floats:
    counts = sum(np.histogram(decibels(tile), bins=DB_EDGES)[0] for tile in tiles)
    density: Floats = np.asarray(counts, dtype=np.float64) / np.sum(counts)
    return density


def _divergence(p: Floats, q: Floats) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))


def speckle_autocorrelation(
    tiles: Sequence[NDArray[np.uint8]], box: int = 9, lags: int = 5
) -> Floats:
    """ACF (2, lags) of r = I/localmean(I) - 1 along azimuth (rows) and range (columns) (E4)."""
    total = np.zeros((2, lags))
    variance = 0.0
    for tile in tiles:
        intensity = (np.maximum(tile.astype(np.float64), 0.5) / 255) ** 2
        r = intensity / ndimage.uniform_filter(intensity, box) - 1
        variance += float(np.mean(r * r))
        for lag in range(1, lags + 1):
            total[0, lag - 1] += np.mean(r[lag:] * r[:-lag])
            total[1, lag - 1] += np.mean(r[:, lag:] * r[:, :-lag])
    return total / variance


def mean_power_spectrum(tiles: Sequence[NDArray[np.uint8]]) -> Floats:
    """Hann-windowed 2-D power spectrum (H, W) of ln A, zero frequency centred, mean over tiles."""
    shape = tiles[0].shape
    taper = np.hanning(shape[0])[:, None] * np.hanning(shape[1])
    total = np.zeros(shape)
    for tile in tiles:
        logarithm = decibels(tile) * (np.log(10) / 20)
        total += np.abs(np.fft.fft2((logarithm - logarithm.mean()) * taper)) ** 2
    return np.fft.fftshift(total) / len(tiles)


def log_spectral_distance(
    real: Sequence[NDArray[np.uint8]], fake: Sequence[NDArray[np.uint8]]
) -> float:
    """10 sqrt(mean (log10 P' - log10 P)^2) in dB on 16 x 16 pooled bins of the spectrum (E5)."""
    p, q = (_pooled(mean_power_spectrum(tiles)) for tiles in (real, fake))
    return float(10 * np.sqrt(np.mean((np.log10(q) - np.log10(p)) ** 2)))


def _pooled(spectrum: Floats, bins: int = 16) -> Floats:
    rows, cols = (side // bins for side in spectrum.shape)
    cut = spectrum[: rows * bins, : cols * bins]
    pooled: Floats = cut.reshape(bins, rows, bins, cols).mean((1, 3))
    return pooled


def grid_lines_db(tiles: Sequence[NDArray[np.uint8]], period: int = 8) -> float:
    """Power at multiples of 1/`period` cycles per pixel over its neighbours, dB; 0 is no grid."""
    spectrum = np.fft.ifftshift(mean_power_spectrum(tiles))
    ratios = []
    for profile in (spectrum.mean(0), spectrum.mean(1)):
        step = profile.size // period
        for line in range(step, profile.size // 2 + 1, step):
            around = [(line + offset) % profile.size for offset in (-3, -2, 2, 3)]
            ratios.append(profile[line] / profile[around].mean())
    return float(10 * np.log10(np.mean(ratios)))


def compare(
    real: Sequence[NDArray[np.uint8]], fake: Sequence[NDArray[np.uint8]]
) -> dict[str, float | list[float]]:
    """E1, E3, E4 and E5 of `fake` against `real` SAR tiles, as plain numbers."""
    jsd, w1 = histogram_distances(real, fake)
    acf_real, acf_fake = speckle_autocorrelation(real), speckle_autocorrelation(fake)
    difference = np.abs(acf_real - acf_fake).max(1)
    return {
        "enl_mode_real": enl_mode(real),
        "enl_mode": enl_mode(fake),
        "histogram_jsd_bits": jsd,
        "histogram_w1_db": w1,
        "acf_azimuth_real": acf_real[0].round(4).tolist(),
        "acf_azimuth": acf_fake[0].round(4).tolist(),
        "acf_range_real": acf_real[1].round(4).tolist(),
        "acf_range": acf_fake[1].round(4).tolist(),
        "acf_azimuth_difference": float(difference[0]),
        "acf_range_difference": float(difference[1]),
        "lsd_db": log_spectral_distance(real, fake),
        "grid_lines_db": grid_lines_db(fake),
    }
