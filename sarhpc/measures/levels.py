"""E3: levels of tiles: histogram, percentiles, what is clipped, and distances between them.

Amplitude is relative to the unit in which both sides are compared: to sqrt(sigma0) = 1, or to the
top of the picture. Levels are 20 log10 A, dB. A set of tiles has the weighted mean of the
histograms and of the percentiles of its tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from sarhpc.measures.amplitude import Array, checked_amplitude

LEVEL_EDGES_DB = np.linspace(-45.0, 25.0, 257)
"""Edges of the histogram, whatever the data, so that distances are comparable."""
PERCENTILES = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
LEAST_PX = 32
"""P99.9 of a tile of 32 x 32 px is its second brightest pixel."""
BRIGHT_DB = 18.0
"""Level over the median of a tile that speckle never reaches: single-look intensity exceeds it with
probability exp(-44)."""
LEAST_EXCESS_DB = 1e-6
"""What a set without bright pixels counts in the ratio of bright excess."""
EMPTY_BIN = 1e-10
"""What an empty bin counts in the Kullback-Leibler divergence."""


@dataclass(frozen=True)
class Levels:
    """Levels of one tile."""

    histogram: Array
    """(256,) fractions of pixels per bin of LEVEL_EDGES_DB; what lies outside is at the ends."""
    percentiles_db: Array
    """(8,) PERCENTILES, dB; not below -45, so that zero amplitude has a level."""
    mean_db: float
    """10 log10 of the mean intensity, dB."""
    bright_excess_db: float
    """Mean over all pixels of what exceeds the median by more than BRIGHT_DB (18 dB), dB: how many
    targets, and how bright."""


def measure_levels(amplitude: NDArray[Any]) -> Levels:
    """Levels of a tile (H, W) of linear amplitude.

    Raises:
        ValueError: fewer than 32 x 32 px, NaN, negative or constant values (`checked_amplitude`);
            or more than half of the pixels above 25 dB, so that the unit must be another.
    """
    A = np.sort(checked_amplitude(amplitude, LEAST_PX), axis=None)
    inner = np.searchsorted(A, 10 ** (LEVEL_EDGES_DB[1:-1] / 20))
    histogram = np.diff(inner, prepend=0, append=A.size) / A.size
    percentiles = _db(np.percentile(A, PERCENTILES))
    median = percentiles[PERCENTILES.index(50.0)]
    if median > LEVEL_EDGES_DB[-1]:
        raise ValueError(
            f"the median level is {median:.1f} dB, above the histogram, which ends at "
            f"{LEVEL_EDGES_DB[-1]:g} dB; pass amplitude relative to sqrt(sigma0) = 1 or to the top "
            "of the picture"
        )
    mean = np.square(A, dtype=np.float64).mean()
    return Levels(histogram, percentiles, float(_db(np.sqrt(mean))), _bright_excess_db(A))


def _db(amplitude: Array) -> Array:
    lowest = 10 ** (LEVEL_EDGES_DB[0] / 20)
    return np.asarray(20.0 * np.log10(np.maximum(amplitude, lowest)), np.float64)


def _bright_excess_db(A: NDArray[np.floating[Any]]) -> float:
    """Bright excess of sorted amplitudes, dB; 0 where more than half of them are 0."""
    threshold = float(A[A.size // 2]) * 10 ** (BRIGHT_DB / 20)
    if threshold <= 0:
        return 0.0
    bright = A[np.searchsorted(A, threshold) :].astype(np.float64)
    return float(20.0 * np.log10(bright / threshold).sum() / A.size)


def jensen_shannon(generated: Array, real: Array) -> float:
    """Jensen-Shannon divergence of two histograms (256,), bits, 0 to 1.

    Source: Lin, IEEE Trans. Inf. Theory 37(1) 1991, eq. 4.1 with equal weights.
    """
    middle = (generated + real) / 2.0
    return (_divergence_bits(generated, middle) + _divergence_bits(real, middle)) / 2.0


def kullback_leibler(generated: Array, real: Array) -> float:
    """KL(real || generated) of two histograms (256,), bits, with 1e-10 in empty bins."""
    return _divergence_bits(real, generated)


def hellinger(generated: Array, real: Array) -> float:
    """Hellinger distance of two histograms (256,): sqrt(1 - sum sqrt(p q)), 0 to 1."""
    return float(np.sqrt(max(0.0, 1.0 - float(np.sqrt(generated) @ np.sqrt(real)))))


def wasserstein_db(generated: Array, real: Array) -> float:
    """First Wasserstein distance of two histograms (256,), dB: how far levels must move."""
    step = LEVEL_EDGES_DB[1] - LEVEL_EDGES_DB[0]
    return float(np.abs(np.cumsum(generated - real)).sum() * step)


def _divergence_bits(p: Array, q: Array) -> float:
    p, q = p + EMPTY_BIN, q + EMPTY_BIN
    return float((p * np.log2(p / q)).sum())


def clipped_fraction(amplitude: NDArray[Any], top: float) -> float:
    """Fraction of the pixels (H, W) whose amplitude exceeds `top`, that of the highest code.

    Raises:
        ValueError: `top` is not positive; NaN, negative or constant values.
    """
    return float((_below(amplitude, top) > top).mean())


def clipped_power(amplitude: NDArray[Any], top: float) -> float:
    """Fraction of the power of the pixels (H, W) that clipping at amplitude `top` takes away.

    1 - sum min(A, top)^2 / sum A^2. A few clipped pixels may hold half the power of a scene.

    Raises:
        ValueError: `top` is not positive; NaN, negative or constant values.
    """
    A = _below(amplitude, top).astype(np.float64)
    return float(1.0 - np.square(np.minimum(A, top)).sum() / np.square(A).sum())


def _below(amplitude: NDArray[Any], top: float) -> NDArray[np.floating[Any]]:
    if not top > 0:
        raise ValueError(f"the top of the picture is {top:g}; it must be a positive amplitude")
    return checked_amplitude(amplitude, 1)


def level_spread_db(mean_db: Array, weights: Array | None = None) -> float:
    """Standard deviation of the mean levels (N,) of the tiles of a set, dB.

    A generator whose images all have the mean gray has little of it.

    Raises:
        ValueError: fewer than two tiles.
    """
    if len(mean_db) < 2:
        raise ValueError(f"{len(mean_db)} tiles have no spread of levels; pass at least 2")
    w = np.full(len(mean_db), 1.0 / len(mean_db)) if weights is None else weights
    return float(np.sqrt(w @ np.square(mean_db - w @ mean_db)))


def bright_excess_ratio(generated_db: float, real_db: float) -> float:
    """Logarithm of the ratio of the bright excess of two sets; negative where targets are dim.

    Args:
        generated_db: weighted mean of `Levels.bright_excess_db` over the tiles of the set, dB.
        real_db: the same of the real set.

    Raises:
        ValueError: the real set has no bright pixel, so that nothing can be said.
    """
    if not real_db > 0:
        raise ValueError(f"no real pixel is {BRIGHT_DB:g} dB over the median of its tile")
    return float(np.log(max(generated_db, LEAST_EXCESS_DB) / max(real_db, LEAST_EXCESS_DB)))


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference between two images of the same tiles, with its 95 % interval."""

    mean_db: float
    low_db: float
    high_db: float

    @property
    def seen(self) -> bool:
        """Whether the interval excludes 0."""
        return not self.low_db <= 0.0 <= self.high_db


def paired_difference(generated_db: Array, real_db: Array) -> PairedDifference:
    """Mean of generated - real levels (N,) of the same N tiles, dB, with Student's 95 % interval.

    The scene cancels, so that a gain is seen that unpaired sets hide in the spread of their levels.

    Raises:
        ValueError: other numbers of tiles, or fewer than three.
    """
    if len(generated_db) != len(real_db) or len(real_db) < 3:
        raise ValueError(
            f"{len(generated_db)} generated and {len(real_db)} real levels are no pairs of at "
            "least 3 tiles; pass both in the same order"
        )
    difference = np.asarray(generated_db, float) - np.asarray(real_db, float)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / np.sqrt(difference.size)
    half = float(student.ppf(0.975, difference.size - 1) * error)
    return PairedDifference(mean, mean - half, mean + half)
