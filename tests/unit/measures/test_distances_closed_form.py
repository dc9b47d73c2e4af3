"""Every distance by hand: sets whose distances are known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from known_features import known_features
from speckle_tiles import tiles

from sarhpc.measures.distances import (
    DISTANCES,
    acf_error,
    autocorrelation,
    bright_target_error,
    enl_ratio_error,
    grid_line_error,
    hellinger,
    jensen_shannon,
    kullback_leibler,
    level_spread_error,
    log_cumulant_distance,
    log_spectral_distance,
    looks,
    texture_error,
    uniform,
    wasserstein_db,
)
from sarhpc.measures.features import Features, measure
from sarhpc.measures.levels import LEVEL_EDGES_DB
from sarhpc.measures.looks import LN_EDGES

BIN_DB = 70 / 256


def bins(size: int, **shares: float) -> np.ndarray:
    """One row (size,) with `shares` at bins named `b7` and nothing elsewhere."""
    row = np.zeros(size)
    for name, share in shares.items():
        row[int(name[1:])] = share
    return row


def levels(**shares: float) -> Features:
    return known_features(histogram=bins(256, **shares))


def between(distance: Any, g: Features, r: Features) -> float:
    return float(distance(g, uniform(g), r, uniform(r)))


LEFT, RIGHT, EVEN = levels(b10=1), levels(b20=1), levels(b10=0.5, b20=0.5)
SKEWED = levels(b10=0.25, b20=0.75)


def test_weights_are_equal_and_sum_to_one() -> None:
    assert uniform(known_features(4)).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("distance", "g", "r", "value"),
    [
        (jensen_shannon, LEFT, RIGHT, 1.0),
        # H(3/4) - H(1/2)/2, by the entropies of the mixture and of its parts.
        (jensen_shannon, LEFT, EVEN, 0.75 * math.log2(4 / 3) + 0.25 * math.log2(4) - 0.5),
        # Of R from G, and empty bins of G count as 1e-10.
        (kullback_leibler, EVEN, LEFT, 1.0),
        (kullback_leibler, EVEN, SKEWED, 0.25 * math.log2(0.5) + 0.75 * math.log2(1.5)),
        (kullback_leibler, LEFT, EVEN, 0.5 * math.log2(0.5) + 0.5 * math.log2(0.5e10)),
        (hellinger, LEFT, RIGHT, 1.0),
        (hellinger, LEFT, EVEN, math.sqrt(1 - math.sqrt(0.5))),
        (wasserstein_db, LEFT, RIGHT, 10 * BIN_DB),
        (wasserstein_db, SKEWED, LEFT, 7.5 * BIN_DB),
    ],
)
def test_histograms_of_levels_are_compared_by_the_functions_of_e3(
    distance: Any, g: Features, r: Features, value: float
) -> None:
    assert between(distance, g, r) == pytest.approx(value, abs=1e-6)
    assert pytest.approx(BIN_DB) == LEVEL_EDGES_DB[1] - LEVEL_EDGES_DB[0]


@pytest.mark.parametrize("lag", range(5))
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_autocorrelations_differ_by_the_largest_lag_of_either_axis(
    axis: int, lag: int, sign: int
) -> None:
    plain = np.ones((2, 7))
    plain[:, 1] = 2.0
    other = plain.copy()
    other[:, 2:] += 0.02
    other[axis, 2 + lag] += 0.4 * sign
    g, r = known_features(lag_products=other), known_features(lag_products=plain)
    found = between(acf_error, g, r)
    # The term of order 1/N of a block moves with rho itself: 4/256 of it and less.
    assert found == pytest.approx(abs(0.4 * sign + 0.02), abs=0.03)
    each = autocorrelation(g, np.ones(1)) - autocorrelation(r, np.ones(1))
    assert found == np.abs(each).max() == abs(each[axis, lag])


@pytest.mark.parametrize(("factor", "db"), [(10.0, 10.0), (0.1, 10.0), (1.0, 0.0), (1000.0, 30.0)])
def test_a_spectrum_times_ten_is_ten_decibels_away(factor: float, db: float) -> None:
    power = np.linspace(1, 2, 256)
    g, r = (known_features(spectrum=one) for one in (power * factor, power))
    assert between(log_spectral_distance, g, r) == pytest.approx(db, abs=1e-6)


def test_spectra_are_averaged_over_tiles_before_their_logarithm() -> None:
    g = known_features(2, spectrum=np.stack([np.full(256, 1.0), np.full(256, 19.0)]))
    assert between(log_spectral_distance, g, known_features()) == pytest.approx(10)


def test_spreads_of_levels_are_compared_as_a_ratio() -> None:
    one, two = known_features(2, mean_db=[0, 2]), known_features(2, mean_db=[1, 5])
    still = known_features(3, mean_db=[7, 7, 7])
    assert between(level_spread_error, one, two) == pytest.approx(math.log(2))
    assert between(level_spread_error, two, one) == pytest.approx(math.log(2))
    # A set without spread counts as one of 1e-3 dB.
    assert between(level_spread_error, one, still) == pytest.approx(math.log(1000))
    assert between(level_spread_error, still, two) == pytest.approx(math.log(2000))
    assert between(level_spread_error, still, still) == 0
    found = level_spread_error(two, np.array([0.1, 0.9]), one, uniform(one))
    assert found == pytest.approx(abs(math.log(2 * 2 * math.sqrt(0.1 * 0.9))))


def test_bright_targets_that_are_missing_are_as_far_as_too_many() -> None:
    few, many, none = (known_features(2, bright_excess_db=[x, 0]) for x in (0.2, 2.0, 0.0))
    assert between(bright_target_error, few, many) == pytest.approx(math.log(10))
    assert between(bright_target_error, many, few) == pytest.approx(math.log(10))
    # A set without a bright pixel counts as one of 1e-6 dB.
    assert between(bright_target_error, none, few) == pytest.approx(math.log(1e5))
    assert between(bright_target_error, few, none) == pytest.approx(math.log(1e5))
    assert between(bright_target_error, none, none) == 0


def test_lines_that_are_missing_are_as_far_as_lines_too_many() -> None:
    plain, grid = known_features(), known_features(lines_db=np.full((2, 4), 3.0))
    assert between(grid_line_error, grid, plain) == pytest.approx(3)
    assert between(grid_line_error, plain, grid) == pytest.approx(3)
    one = np.zeros((2, 4))
    one[0, 3] = 2.0
    # Half of the axes; the line at 1/2 cycles per pixel weighs a tenth of the four.
    assert between(grid_line_error, known_features(lines_db=one), plain) == pytest.approx(0.1)


def test_clouds_of_log_cumulants_are_apart_by_their_means_and_spreads_and_not_by_gain() -> None:
    points = np.array([[0.0, 1.0, -2.0], [4.0, 3.0, -2.0], [1.0, 2.0, 1.0], [2.0, 2.0, -5.0]])
    r = known_features(4, log_cumulants=points)
    louder, moved = (
        known_features(4, log_cumulants=points + np.array(by)) for by in ([9, 0, 0], [0, 3, -4])
    )
    assert between(log_cumulant_distance, louder, r) == pytest.approx(0, abs=1e-6)
    assert between(log_cumulant_distance, moved, r) == pytest.approx(5)
    mean = points.mean(0)
    wide = known_features(4, log_cumulants=mean + 3 * (points - mean))
    # Spreads of sqrt(1/2) and sqrt(4.5) along the axes, three times as wide: twice their root sum.
    assert between(log_cumulant_distance, wide, r) == pytest.approx(2 * math.sqrt(0.5 + 4.5))


def test_textures_are_apart_by_their_means_in_spreads_of_the_real_tiles() -> None:
    real = np.ones((2, 4, 3, 5)) * np.array([-1.0, 1.0])[:, None, None, None]
    r = known_features(2, texture=real)
    assert between(texture_error, known_features(2, texture=real * 9), r) == pytest.approx(0)
    assert between(texture_error, known_features(2, texture=real + 3), r) == pytest.approx(3)
    along_one = real.copy()
    along_one[:, 2] += 4
    assert between(texture_error, known_features(2, texture=along_one), r) == pytest.approx(2)
    # A resampling of one tile alone is measured in the spread of all.
    found = texture_error(r, uniform(r), r, np.array([1.0, 0.0]))
    assert found == pytest.approx(1)


def windows(ln_enl: float, width: float = 0.3) -> Features:
    """Local ENL with a normal density of its logarithm, of uncorrelated pixels."""
    middle = (LN_EDGES[1:] + LN_EDGES[:-1]) / 2
    density = np.exp(-(((middle - ln_enl) / width) ** 2) / 2)
    return known_features(local_enl=density / density.sum())


def test_looks_are_compared_as_a_ratio_without_steps() -> None:
    for step in (0.003, 0.0301, 0.5):
        found = between(enl_ratio_error, windows(1.0 + step), windows(1.0))
        # The correction (1 + 1/L) 2/81 is 1 % smaller for 4 looks than for 2.
        assert found == pytest.approx(step, rel=0.02)
        assert between(enl_ratio_error, windows(1.0), windows(1.0 + step)) == pytest.approx(found)


def test_flat_images_have_the_most_looks_of_the_scale_and_empty_ones_the_fewest() -> None:
    flat = known_features(local_enl=bins(600, b599=1))
    empty = known_features(local_enl=bins(600, b0=1))
    assert looks(flat, np.ones(1)) == pytest.approx(math.exp(7))
    assert looks(empty, np.ones(1)) == pytest.approx(math.exp(-5))
    assert between(enl_ratio_error, flat, windows(0.0)) > 6


MEASURED = replace(measure(tiles(5, 9)), bright_excess_db=np.linspace(0.1, 0.3, 9))


@pytest.mark.parametrize("name", DISTANCES)
def test_a_tile_of_weight_two_is_two_tiles(name: str) -> None:
    g, r = MEASURED.subset(np.arange(4)), MEASURED.subset(np.arange(4, 9))
    twice_g = g.subset(np.array([0, 0, 1, 2, 3, 3]))
    twice_r = r.subset(np.array([0, 1, 1, 2, 2, 2, 3, 4]))
    weighed = DISTANCES[name][0](g, np.array([2, 1, 1, 2]) / 6, r, np.array([1, 2, 3, 1, 1]) / 8)
    assert weighed == pytest.approx(between(DISTANCES[name][0], twice_g, twice_r))
    assert weighed > 0


@pytest.mark.parametrize("name", DISTANCES)
def test_a_set_is_at_no_distance_from_itself(name: str) -> None:
    assert between(DISTANCES[name][0], MEASURED, MEASURED) == pytest.approx(0, abs=1e-6)


def test_each_name_stands_for_its_distance_and_unit() -> None:
    assert {name: (law, unit) for name, (law, unit, _) in DISTANCES.items()} == {
        "E1_enl": (enl_ratio_error, "|ln ratio|"),
        "E2_log_cumulants": (log_cumulant_distance, ""),
        "E3_jsd": (jensen_shannon, "bits"),
        "E3_kl": (kullback_leibler, "bits"),
        "E3_hellinger": (hellinger, ""),
        "E3_w1": (wasserstein_db, "dB"),
        "E3_level_spread": (level_spread_error, "|ln ratio|"),
        "E3_bright": (bright_target_error, "|ln ratio|"),
        "E4_acf": (acf_error, ""),
        "E5_lsd": (log_spectral_distance, "dB"),
        "E5_lines": (grid_line_error, "dB"),
        "E6_texture": (texture_error, "spreads"),
    }
