"""E3 by closed forms: exponential intensity, histograms of known distance, pairs of known gain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from speckle_tiles import scene

from sarhpc.measures.amplitude import log_amplitude
from sarhpc.measures.defects import gained
from sarhpc.measures.levels import (
    LEVEL_EDGES_DB,
    PERCENTILES,
    bright_excess_ratio,
    clipped_fraction,
    clipped_power,
    hellinger,
    jensen_shannon,
    kullback_leibler,
    level_spread_db,
    measure_levels,
    paired_difference,
    wasserstein_db,
)

BIN_DB = 70 / 256


def bins(**shares: float) -> np.ndarray:
    row = np.zeros(256)
    for name, share in shares.items():
        row[int(name[1:])] = share
    return row


LEFT, RIGHT, EVEN = bins(b10=1), bins(b20=1), bins(b10=0.5, b20=0.5)


def rayleigh(px: int = 512, seed: int = 0) -> np.ndarray:
    """Amplitude of independent single-look pixels of mean intensity 1."""
    return np.sqrt(np.random.default_rng(seed).exponential(size=(px, px)))


def test_distances_of_histograms_in_closed_form() -> None:
    assert jensen_shannon(LEFT, RIGHT) == pytest.approx(1, abs=2e-7)
    half = 0.75 * math.log2(4 / 3) + 0.25 * math.log2(4) - 0.5
    assert jensen_shannon(LEFT, EVEN) == pytest.approx(half, abs=2e-7)
    # KL of the real from the generated: a missing level costs log2(1e10) bits, an extra one 1.
    assert kullback_leibler(EVEN, LEFT) == pytest.approx(1, abs=1e-6)
    assert kullback_leibler(LEFT, RIGHT) == pytest.approx(math.log2(1e10), abs=1e-6)
    assert hellinger(LEFT, EVEN) == pytest.approx(math.sqrt(1 - math.sqrt(0.5)))
    assert wasserstein_db(LEFT, EVEN) == pytest.approx(5 * BIN_DB)
    for distance in (jensen_shannon, kullback_leibler, hellinger, wasserstein_db):
        assert distance(EVEN, EVEN) == pytest.approx(0, abs=1e-7)


def test_percentiles_of_single_look_speckle() -> None:
    found = measure_levels(rayleigh())
    p = np.array(PERCENTILES) / 100
    intensity = -np.log1p(-p)
    # The p-quantile of n values has the variance p (1 - p) / (n f(q)^2), with f(q) = 1 - p.
    error_db = 4.343 / intensity * np.sqrt(p / (1 - p) / 512**2)
    assert (np.abs(found.percentiles_db - 10 * np.log10(intensity)) < 4 * error_db).all()
    # The mean of n exponentials has the relative deviation 1 / sqrt(n).
    assert found.mean_db == pytest.approx(0, abs=4 * 4.343 / 512)
    assert found.bright_excess_db == 0


def test_the_histogram_holds_each_pixel_once_whatever_its_level() -> None:
    A = rayleigh()
    A[:4], A[4:6] = 0.0, 1e3
    found = measure_levels(A).histogram
    db = np.clip(20 * np.log10(np.maximum(A, 1e-9)), -44.999, 24.999)
    expected = np.histogram(db, LEVEL_EDGES_DB)[0] / A.size
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found.sum() == pytest.approx(1)


def test_a_zero_has_the_lowest_level_and_bright_pixels_have_theirs() -> None:
    A = np.full((64, 64), 0.1)
    A[:32], A[0, :41] = 0.0, 1.0  # 41 of 4096 pixels: the highest 1 %
    found = measure_levels(A)
    assert found.percentiles_db[0] == pytest.approx(-45)
    assert found.percentiles_db[-1] == pytest.approx(0)
    assert found.percentiles_db[PERCENTILES.index(75)] == pytest.approx(-20)


def test_bright_excess_is_what_exceeds_18_db_over_the_median() -> None:
    A = np.full((32, 32), 0.1)
    A[0, :4], A[1, :4] = 0.1 * 10 ** (28 / 20), 0.1 * 10 ** (17 / 20)
    excess = measure_levels(A).bright_excess_db
    assert excess == pytest.approx(4 * 10 / 1024)
    assert measure_levels(gained(A, 7)).bright_excess_db == pytest.approx(excess)
    assert bright_excess_ratio(excess / 2, excess) == pytest.approx(-math.log(2))
    assert bright_excess_ratio(0.0, excess) < -10


@pytest.mark.parametrize("top", [1.0, 1.5, 2.0])
def test_clipped_pixels_and_power_of_exponential_intensity(top: float) -> None:
    A = rayleigh()
    share = math.exp(-(top**2))  # P(I > t) = E[(I - t)+] / E[I] = exp(-t)
    pixels = math.sqrt(share / A.size)
    assert clipped_fraction(A, top) == pytest.approx(share, abs=4 * pixels)
    # E[(I - t)+^2] = 2 exp(-t).
    assert clipped_power(A, top) == pytest.approx(share, abs=4 * math.sqrt(2) * pixels)


def test_few_clipped_pixels_may_hold_most_of_the_power() -> None:
    A = np.full((100, 100), 1.0)
    A[0] = 20.0
    assert clipped_fraction(A, 2.0) == pytest.approx(0.01)
    assert clipped_power(A, 2.0) == pytest.approx(1 - (9900 + 400) / (9900 + 40000))
    assert clipped_power(A, 20.0) == 0


def test_a_collapse_to_the_mean_gray_has_no_spread() -> None:
    levels = np.array([-20.0, -14.0, -8.0])
    assert level_spread_db(levels) == pytest.approx(math.sqrt(24))
    assert level_spread_db(np.full(3, -14.0)) == pytest.approx(0)
    weighed = level_spread_db(levels, np.array([0.5, 0.0, 0.5]))
    assert weighed == pytest.approx(6)


def test_a_gain_of_0_3_db_of_the_same_scenes_is_seen_and_none_is_not() -> None:
    """Twelve tiles of 96 px with other speckle, whose levels spread by 3 dB."""
    seeds, spread = range(12), np.random.default_rng(5).normal(0, 3, 12)
    real = [
        gained(scene(np.random.default_rng(s)), db) for s, db in zip(seeds, spread, strict=True)
    ]
    other = [a * speckle_ratio(a, s) for s, a in zip(seeds, real, strict=True)]
    levels = np.array([measure_levels(a).mean_db for a in real])
    same = np.array([measure_levels(a).mean_db for a in other])
    raised = np.array([measure_levels(gained(a, 0.3)).mean_db for a in other])
    found = paired_difference(raised, levels)
    assert found.seen
    assert found.low_db < 0.3 < found.high_db
    assert not paired_difference(same, levels).seen
    assert level_spread_db(levels) > 8 * 0.3


def speckle_ratio(A: np.ndarray, seed: int) -> np.ndarray:
    """Multiplicative noise (H, W) of four looks and mean power 1."""
    rng = np.random.default_rng(1000 + seed)
    return np.sqrt(rng.gamma(4.0, 0.25, A.shape))


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (np.ones((64, 64)), "one value"),
        (np.full((64, 64), np.nan), "4096 values are NaN"),
        (rayleigh(16), "16 x 16 px; this measure needs at least 32 x 32"),
        (-rayleigh(64), "not dB"),
        (rayleigh(64)[0], "pass one tile"),
        (rayleigh(64) * 1j, "complex"),
        (rayleigh(64) * 1e4, "above the histogram"),
    ],
)
def test_what_is_no_tile_is_refused(tile: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_levels(tile)


def test_what_has_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        level_spread_db(np.array([1.0]))
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference(np.zeros(4), np.zeros(5))
    with pytest.raises(ValueError, match="positive amplitude"):
        clipped_power(rayleigh(64), 0.0)
    with pytest.raises(ValueError, match="no real pixel"):
        bright_excess_ratio(1.0, 0.0)


def test_the_logarithm_of_amplitude_ends_40_db_below_the_median() -> None:
    A = np.full((32, 32), 2.0)
    A[0, :3] = 0.0, 2e-3, 0.2
    expected = np.array([-2.0, -2.0, -1.0, 0.0]) * np.log(10)
    np.testing.assert_allclose(log_amplitude(A, 32)[0, :4], expected, atol=1e-12)
