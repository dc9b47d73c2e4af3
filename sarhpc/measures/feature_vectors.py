"""E9: what is measured of a tile (E1 to E6) as one vector, for distances between clouds of tiles.

E7 has no part in it: the response of point targets is measured on chips around known reflectors,
and not of every tile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.amplitude import Array
from sarhpc.measures.features import Features
from sarhpc.measures.levels import PERCENTILES
from sarhpc.measures.looks import LN_EDGES
from sarhpc.measures.speckle_correlation import speckle_autocorrelation
from sarhpc.measures.spectrum import LINE_WEIGHTS, RADII
from sarhpc.measures.texture import DIRECTIONS, FEATURES

AXES = ("azimuth", "range")
ACF_LAGS = 2
"""Lags whose autocorrelation a single tile tells; beyond them speckle is hardly correlated."""
BANDS = 8
"""Bands of equal width of spatial frequency."""
_MEDIAN = PERCENTILES.index(50.0)
_TAILS = tuple(n for n in range(len(PERCENTILES)) if n != _MEDIAN)

VECTOR_NAMES = (
    "E1 mean of ln ENL",
    "E1 spread of ln ENL",
    "E2 k2",
    "E2 k3",
    "E3 mean level, dB",
    *(f"E3 P{PERCENTILES[n]:g} less median, dB" for n in _TAILS),
    "E3 root of bright excess",
    *(f"E4 {axis} lag {lag}" for axis in AXES for lag in range(1, ACF_LAGS + 1)),
    *(f"E5 log power, band {band}" for band in range(1, BANDS + 1)),
    *(f"E5 lines, {axis}, dB" for axis in AXES),
    *(f"E6 {feature}, {axis}" for axis in AXES for feature in FEATURES),
)
"""Name of each entry of a vector."""


def tile_vectors(features: Features) -> NDArray[np.float64]:
    """Vectors (N, 37) of N tiles; entry by entry as in VECTOR_NAMES, each in its own unit."""
    centres = (LN_EDGES[:-1] + LN_EDGES[1:]) / 2
    mean = features.local_enl @ centres
    spread = np.sqrt(np.maximum(features.local_enl @ centres**2 - mean**2, 0.0))
    tails = features.percentiles_db - features.percentiles_db[:, [_MEDIAN]]
    power = np.log10(np.maximum(features.radial, np.finfo(float).tiny))
    at = [list(DIRECTIONS).index(axis) for axis in AXES]
    parts = (
        np.stack([mean, spread], 1),
        features.log_cumulants[:, 1:],
        features.mean_db[:, None],
        tails[:, _TAILS],
        np.sqrt(features.bright_excess_db)[:, None],
        np.stack([_autocorrelation(products) for products in features.lag_products]),
        power.reshape(len(features), BANDS, RADII // BANDS).mean(2),
        features.lines_db @ LINE_WEIGHTS,
        features.texture[:, at, 0].reshape(len(features), -1),
    )
    return np.concatenate(parts, axis=1).astype(np.float64)


def _autocorrelation(products: Array) -> Array:
    """Autocorrelation of one tile at the first lags, azimuth before range; 1 without speckle."""
    try:
        return speckle_autocorrelation(products)[:, :ACF_LAGS].ravel()
    except ValueError:
        return np.ones(len(AXES) * ACF_LAGS)


def standardised(vectors: NDArray[np.float64], real: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors less the mean of the real ones, in standard deviations of the real ones.

    An entry that is the same in all real tiles counts in its own unit.
    """
    deviation = real.std(0)
    scale = np.where(deviation > 1e-9 * np.maximum(np.abs(real).max(0), 1.0), deviation, 1.0)
    return np.asarray((vectors - real.mean(0)) / scale)
