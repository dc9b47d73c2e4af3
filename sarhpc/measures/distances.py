"""Distances between two sets of tiles: of the weighted means of their features.

Each is 0 for sets that agree and larger the farther they are apart. All are two-sided: too much is
as far as too little, of bright targets and of lines too, whose values are signed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures import levels
from sarhpc.measures.amplitude import Array
from sarhpc.measures.features import Features
from sarhpc.measures.log_cumulants import diagram_distance
from sarhpc.measures.looks import LN_EDGES, enl_mode
from sarhpc.measures.speckle_correlation import speckle_autocorrelation
from sarhpc.measures.spectrum import grid_lines_db
from sarhpc.measures.spectrum import log_spectral_distance as spectral_distance
from sarhpc.measures.texture import overall, texture_distance

Weights = NDArray[np.float64]
"""(N,) non-negative weights of the tiles of a set, summing to one."""
Distance = Callable[[Features, Weights, Features, Weights], float]

LEAST_SPREAD_DB = 1e-3
"""What tiles that all have the same level count in the ratio of spreads."""


def uniform(features: Features) -> Weights:
    """Equal weights."""
    return np.full(len(features), 1.0 / len(features))


def mean_of(values: Array, weights: Weights) -> Array:
    """Weighted mean over the tiles, the first axis."""
    return np.asarray(np.tensordot(weights, values, 1))


def autocorrelation(features: Features, weights: Weights) -> Array:
    """E4: autocorrelation (2, 5) of the speckle of a set at lags 1 to 5 px, azimuth, then range."""
    return speckle_autocorrelation(mean_of(features.lag_products, weights))


def looks(features: Features, weights: Weights) -> float:
    """E1: ENL of the most frequent windows of a set; 1100, the end of its scale, for flat images.

    Raises:
        ValueError: no contrast within 16 px at all.
    """
    histogram, acf = mean_of(features.local_enl, weights), autocorrelation(features, weights)
    try:
        return enl_mode(histogram, acf)
    except ValueError:
        return math.exp(LN_EDGES[0] if histogram.argmax() < histogram.size / 2 else LN_EDGES[-1])


def enl_ratio_error(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E1: |ln(ENL mode of G / ENL mode of R)|."""
    return abs(math.log(looks(g, wg) / looks(r, wr)))


def log_cumulant_distance(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E2: 2-Wasserstein distance of the clouds of tiles in the diagram of (k2, k3)."""
    return diagram_distance(g.log_cumulants[:, 1:], r.log_cumulants[:, 1:], wg, wr)


def jensen_shannon(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: Jensen-Shannon divergence of the histograms of levels, bits."""
    return levels.jensen_shannon(*_histograms(g, wg, r, wr))


def kullback_leibler(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: KL(R || G) of the histograms of levels, bits."""
    return levels.kullback_leibler(*_histograms(g, wg, r, wr))


def hellinger(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: Hellinger distance of the histograms of levels, 0 to 1."""
    return levels.hellinger(*_histograms(g, wg, r, wr))


def wasserstein_db(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: first Wasserstein distance of the histograms of levels, dB."""
    return levels.wasserstein_db(*_histograms(g, wg, r, wr))


def level_spread_error(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: |ln| of the ratio of the spreads of the tiles' mean levels."""
    spreads = (levels.level_spread_db(side.mean_db, w) for side, w in ((g, wg), (r, wr)))
    ours, theirs = (max(spread, LEAST_SPREAD_DB) for spread in spreads)
    return abs(math.log(ours / theirs))


def bright_target_error(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E3: |ln| of the ratio of bright excess; 0 where neither set has a bright pixel."""
    ours, theirs = float(wg @ g.bright_excess_db), float(wr @ r.bright_excess_db)
    return abs(levels.bright_excess_ratio(ours, max(theirs, levels.LEAST_EXCESS_DB)))


def acf_error(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E4: largest difference of the autocorrelation of speckle at lags 1 to 5, on either axis."""
    return float(np.abs(autocorrelation(g, wg) - autocorrelation(r, wr)).max())


def log_spectral_distance(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E5: 10 sqrt(mean (log10 P_G - log10 P_R)^2) over 16 x 16 bins of the spectrum of ln A, dB."""
    return spectral_distance(mean_of(g.spectrum, wg), mean_of(r.spectrum, wr))


def grid_line_error(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E5: |difference| of the level of the lines at multiples of 1/8 cycles per pixel, dB."""
    ours, theirs = (grid_lines_db(mean_of(s.lines_db, w)) for s, w in ((g, wg), (r, wr)))
    return abs(ours - theirs)


def texture_error(g: Features, wg: Weights, r: Features, wr: Weights) -> float:
    """E6: root mean square over co-occurrence features of (mean_G - mean_R) / spread_R."""
    return overall(texture_distance(g.texture, r.texture, wg, wr))


def _histograms(g: Features, wg: Weights, r: Features, wr: Weights) -> tuple[Array, Array]:
    return wg @ g.histogram, wr @ r.histogram


DISTANCES: Mapping[str, tuple[Distance, str, str]] = {
    "E1_enl": (enl_ratio_error, "|ln ratio|", "number of looks, mode over 9x9 windows"),
    "E2_log_cumulants": (log_cumulant_distance, "", "log-cumulant diagram, Wasserstein-2"),
    "E3_jsd": (jensen_shannon, "bits", "dB histogram, Jensen-Shannon"),
    "E3_kl": (kullback_leibler, "bits", "dB histogram, KL(R||G)"),
    "E3_hellinger": (hellinger, "", "dB histogram, Hellinger"),
    "E3_w1": (wasserstein_db, "dB", "dB histogram, Wasserstein-1"),
    "E3_level_spread": (level_spread_error, "|ln ratio|", "spread of tile mean levels"),
    "E3_bright": (bright_target_error, "|ln ratio|", "bright targets, excess over the median"),
    "E4_acf": (acf_error, "", "speckle autocorrelation, largest difference"),
    "E5_lsd": (log_spectral_distance, "dB", "log-spectral distance"),
    "E5_lines": (grid_line_error, "dB", "lines of a grid of 8 px, difference"),
    "E6_texture": (texture_error, "spreads", "co-occurrence texture, root mean square"),
}
"""Name -> (distance, unit, what it says)."""
