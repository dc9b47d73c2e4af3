"""Distances between two sets of tiles, from the means of their features."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.features import DB_EDGES, ENL_EDGES, Array, Features

Weights = NDArray[np.float64]
"""(N,) non-negative weights of the tiles of a set, summing to one."""
Distance = Callable[[Features, Weights, Features, Weights], float]


def uniform(features: Features) -> Weights:
    """Equal weights."""
    return np.full(len(features), 1.0 / len(features))


def look_mode(features: Features, weights: Weights) -> float:
    """E1: mode of the local ENL, robust to what the scene holds; 1 for single-look speckle."""
    histogram = weights @ features.looks
    smooth = np.convolve(histogram, np.ones(5) / 5.0, mode="same")
    peak = int(np.argmax(smooth))
    return float(np.sqrt(ENL_EDGES[peak] * ENL_EDGES[peak + 1]))


def enl_ratio_error(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E1: |ln(ENL mode of G / ENL mode of R)|; 0 when the looks agree."""
    return abs(float(np.log(look_mode(g, wg) / look_mode(r, wr))))


def jensen_shannon(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: Jensen-Shannon divergence of the dB histograms, bits."""
    p, q = wg @ g.histogram, wr @ r.histogram
    m = (p + q) / 2.0
    return float((_kl_bits(p, m) + _kl_bits(q, m)) / 2.0)


def kullback_leibler(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: KL(R || G) of the dB histograms, bits, with 1e-10 in empty bins."""
    return _kl_bits(wr @ r.histogram, wg @ g.histogram)


def hellinger(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: Hellinger distance of the dB histograms, 0 to 1."""
    p, q = np.sqrt(wg @ g.histogram), np.sqrt(wr @ r.histogram)
    return float(np.sqrt(max(0.0, 1.0 - float(p @ q))))


def wasserstein_db(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: first Wasserstein distance of the dB histograms, dB."""
    step = DB_EDGES[1] - DB_EDGES[0]
    return float(np.abs(np.cumsum(wg @ g.histogram - wr @ r.histogram)).sum() * step)


def acf_error(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E4: largest difference of the speckle autocorrelation at lags 1 to 5, both directions."""
    along_range = np.abs(wg @ g.acf_range - wr @ r.acf_range).max()
    along_azimuth = np.abs(wg @ g.acf_azimuth - wr @ r.acf_azimuth).max()
    return float(max(along_range, along_azimuth))


def log_spectral_distance(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E5: 10 sqrt(mean (log10 P_G - log10 P_R)^2) over the 16x16 bins, dB."""
    difference = np.log10(wg @ g.psd + 1e-12) - np.log10(wr @ r.psd + 1e-12)
    return float(10.0 * np.sqrt((difference**2).mean()))


def level_spread_error(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: |ln| of the ratio of the tiles' mean-level spread; catches collapse to mean gray."""
    return abs(float(np.log(_spread(g, wg) / _spread(r, wr))))


def _spread(f: Features, w: Weights) -> float:
    mean = float(w @ f.mean_db)
    return max(float(np.sqrt(w @ (f.mean_db - mean) ** 2)), 1e-3)


def _kl_bits(p: Array, q: Array) -> float:
    p, q = p + 1e-10, q + 1e-10
    return float((p * np.log2(p / q)).sum())


DISTANCES: Mapping[str, tuple[Distance, str, str]] = {
    "E1_enl": (enl_ratio_error, "|ln ratio|", "number of looks, mode over 9x9 windows"),
    "E3_jsd": (jensen_shannon, "bits", "dB histogram, Jensen-Shannon"),
    "E3_kl": (kullback_leibler, "bits", "dB histogram, KL(R||G)"),
    "E3_hellinger": (hellinger, "", "dB histogram, Hellinger"),
    "E3_w1": (wasserstein_db, "dB", "dB histogram, Wasserstein-1"),
    "E3_level_spread": (level_spread_error, "|ln ratio|", "spread of tile mean levels"),
    "E4_acf": (acf_error, "", "speckle autocorrelation, largest difference"),
    "E5_lsd": (log_spectral_distance, "dB", "log-spectral distance"),
}
"""Name -> (distance, unit, what it says)."""
