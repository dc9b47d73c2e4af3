"""Every distance by hand: sets whose distances are known in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sarhpc.measures.distances import (
    DISTANCES,
    acf_error,
    enl_ratio_error,
    hellinger,
    jensen_shannon,
    kullback_leibler,
    level_spread_error,
    log_spectral_distance,
    look_mode,
    uniform,
    wasserstein_db,
)
from sarhpc.measures.features import DB_EDGES, ENL_EDGES, Features

BIN_DB = 70 / 256
SIZES = {"histogram": 256, "looks": 120, "acf_range": 5, "acf_azimuth": 5, "psd": 256}


def tiles(count: int = 1, **known: Any) -> Features:
    """A set of tiles whose measures are those `known`; the others are flat."""
    plain = {name: np.full((count, size), 1 / size) for name, size in SIZES.items()}
    plain |= {n: np.zeros(count) for n in ("mean_db", "clipped")}
    return Features(**{**plain, **{name: np.asarray(x, float) for name, x in known.items()}})


def bins(size: int, **shares: float) -> np.ndarray:
    """One row (1, size) with `shares` at bins named `b7` and nothing elsewhere."""
    row = np.zeros((1, size))
    for name, share in shares.items():
        row[0, int(name[1:])] = share
    return row


def levels(**shares: float) -> Features:
    return tiles(histogram=bins(256, **shares))


def between(distance: Any, g: Features, r: Features) -> float:
    return float(distance(g, uniform(g), r, uniform(r)))


LEFT, RIGHT, EVEN = levels(b10=1), levels(b20=1), levels(b10=0.5, b20=0.5)
SKEWED = levels(b10=0.25, b20=0.75)


def test_weights_are_equal_and_sum_to_one() -> None:
    assert uniform(tiles(4)).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("g", "r", "bits"),
    [
        (LEFT, RIGHT, 1.0),
        (RIGHT, LEFT, 1.0),
        (LEFT, LEFT, 0.0),
        # H(3/4) - H(1/2)/2, by the entropies of the mixture and of its parts.
        (LEFT, EVEN, 0.75 * math.log2(4 / 3) + 0.25 * math.log2(4) - 0.5),
    ],
)
def test_jensen_shannon_in_bits(g: Features, r: Features, bits: float) -> None:
    assert between(jensen_shannon, g, r) == pytest.approx(bits, abs=2e-7)


@pytest.mark.parametrize(
    ("g", "r", "bits"),
    [
        (EVEN, LEFT, 1.0),
        (EVEN, SKEWED, 0.25 * math.log2(0.5) + 0.75 * math.log2(1.5)),
        (SKEWED, EVEN, 0.5 * math.log2(2) + 0.5 * math.log2(2 / 3)),
        # Empty bins of G count as 1e-10.
        (LEFT, RIGHT, math.log2(1e10)),
        (LEFT, EVEN, 0.5 * math.log2(0.5) + 0.5 * math.log2(0.5e10)),
    ],
)
def test_kullback_leibler_of_the_real_from_the_generated_in_bits(
    g: Features, r: Features, bits: float
) -> None:
    assert between(kullback_leibler, g, r) == pytest.approx(bits, abs=1e-6)


@pytest.mark.parametrize(
    ("g", "r", "value"),
    [(LEFT, RIGHT, 1.0), (LEFT, LEFT, 0.0), (LEFT, EVEN, math.sqrt(1 - math.sqrt(0.5)))],
)
def test_hellinger_is_the_root_of_what_the_affinity_lacks(
    g: Features, r: Features, value: float
) -> None:
    assert between(hellinger, g, r) == pytest.approx(value, abs=1e-12)


def test_hellinger_of_a_set_with_itself_is_a_number_whatever_rounding_does() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(256), size=40)
    for row in rows:
        itself = tiles(histogram=row[None])
        assert between(hellinger, itself, itself) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("g", "r", "db"),
    [
        (LEFT, RIGHT, 10 * BIN_DB),
        (RIGHT, LEFT, 10 * BIN_DB),
        (LEFT, EVEN, 5 * BIN_DB),
        (LEFT, SKEWED, 7.5 * BIN_DB),
        (levels(b0=1), levels(b255=1), 255 * BIN_DB),
    ],
)
def test_wasserstein_is_the_distance_that_the_levels_move(
    g: Features, r: Features, db: float
) -> None:
    assert between(wasserstein_db, g, r) == pytest.approx(db)
    assert pytest.approx(BIN_DB) == DB_EDGES[1] - DB_EDGES[0]


@pytest.mark.parametrize("lag", range(5))
@pytest.mark.parametrize("axis", ["acf_range", "acf_azimuth"])
@pytest.mark.parametrize("sign", [1, -1])
def test_autocorrelations_differ_by_the_largest_lag_of_either_axis(
    axis: str, lag: int, sign: int
) -> None:
    other = {"acf_range": "acf_azimuth", "acf_azimuth": "acf_range"}[axis]
    large, small = np.zeros((1, 5)), np.full((1, 5), 0.1)
    large[0, lag] = sign * 0.3
    known = {axis: large, other: small}
    assert between(
        acf_error, tiles(**known), tiles(acf_range=large * 0, acf_azimuth=large * 0)
    ) == (pytest.approx(0.3))


@pytest.mark.parametrize(("factor", "db"), [(10.0, 10.0), (0.1, 10.0), (1.0, 0.0), (1000.0, 30.0)])
def test_a_spectrum_times_ten_is_ten_decibels_away(factor: float, db: float) -> None:
    power = np.linspace(1, 2, 256)[None]
    found = between(log_spectral_distance, tiles(psd=power * factor), tiles(psd=power))
    assert found == pytest.approx(db, abs=1e-6)


def test_log_spectral_distance_is_quadratic_in_what_some_bins_differ_by() -> None:
    power = np.ones((1, 256))
    other = power.copy()
    other[0, :64] = 100.0
    found = between(log_spectral_distance, tiles(psd=other), tiles(psd=power))
    assert found == pytest.approx(20 * math.sqrt(1 / 4), abs=1e-6)
    # An empty bin counts as 1e-12.
    for one, two in ((power, power * 0), (power * 0, power)):
        found = between(log_spectral_distance, tiles(psd=one), tiles(psd=two))
        assert found == pytest.approx(120)


def test_spreads_of_levels_are_compared_as_a_ratio() -> None:
    one, two = tiles(2, mean_db=[0, 2]), tiles(2, mean_db=[1, 5])
    still = tiles(3, mean_db=[7, 7, 7])
    assert between(level_spread_error, one, two) == pytest.approx(math.log(2))
    assert between(level_spread_error, two, one) == pytest.approx(math.log(2))
    # A set without spread counts as one of 1e-3 dB.
    assert between(level_spread_error, one, still) == pytest.approx(math.log(1000))
    assert between(level_spread_error, still, two) == pytest.approx(math.log(2000))
    assert between(level_spread_error, still, still) == 0


def test_the_spread_is_around_the_weighted_mean() -> None:
    g, r = tiles(2, mean_db=[3, 7]), tiles(2, mean_db=[0, 2])
    found = level_spread_error(g, np.array([0.1, 0.9]), r, uniform(r))
    assert found == pytest.approx(abs(math.log(4 * math.sqrt(0.1 * 0.9))))


def hump(centre: int, spike: int | None = None) -> Features:
    """Windows spread over five bins of the number of looks, and a spike elsewhere."""
    row = np.zeros((1, 120))
    row[0, centre - 2 : centre + 3] = 0.2 if spike is None else 0.12
    if spike is not None:
        row[0, spike] = 0.4
    return tiles(looks=row)


@pytest.mark.parametrize("centre", [2, 40, 117])
def test_the_mode_of_the_looks_is_the_geometric_middle_of_its_bin(centre: int) -> None:
    found = look_mode(hump(centre), np.ones(1))
    assert found == pytest.approx(0.05 * 1000 ** ((centre + 0.5) / 120))
    assert ENL_EDGES[centre] < found < ENL_EDGES[centre + 1]


def test_a_lone_spike_is_not_the_mode_of_the_looks() -> None:
    assert look_mode(hump(40, spike=90), np.ones(1)) == look_mode(hump(40), np.ones(1))


def test_the_mode_is_where_five_bins_together_hold_most() -> None:
    for row in np.random.default_rng(1).dirichlet(np.full(120, 0.3), size=20):
        padded = np.pad(row, 2)
        held = [padded[place : place + 5].sum() for place in range(120)]
        peak = int(np.argmax(held))
        found = look_mode(tiles(looks=row[None]), np.ones(1))
        assert found == pytest.approx(0.05 * 1000 ** ((peak + 0.5) / 120))


@pytest.mark.parametrize(("g", "r"), [(50, 40), (40, 50)])
def test_looks_are_compared_as_a_ratio(g: int, r: int) -> None:
    found = between(enl_ratio_error, hump(g), hump(r))
    assert found == pytest.approx(10 * math.log(1000) / 120)
    assert between(enl_ratio_error, hump(g), hump(g)) == 0


RANDOM = np.random.default_rng(5)


def spread_tiles(count: int) -> Features:
    known: dict[str, Any] = {n: RANDOM.dirichlet(np.ones(s), count) for n, s in SIZES.items()}
    known["mean_db"] = RANDOM.normal(size=count)
    return tiles(count, **known)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_tile_of_weight_two_is_two_tiles(name: str) -> None:
    g, r = spread_tiles(3), spread_tiles(2)
    twice_g, twice_r = g.subset(np.array([0, 0, 1, 2])), r.subset(np.array([0, 1, 1, 1]))
    weighed = DISTANCES[name][0](g, np.array([0.5, 0.25, 0.25]), r, np.array([0.25, 0.75]))
    assert weighed == pytest.approx(between(DISTANCES[name][0], twice_g, twice_r))
    assert weighed > 0


@pytest.mark.parametrize("name", DISTANCES)
def test_a_set_is_at_no_distance_from_itself(name: str) -> None:
    g = spread_tiles(3)
    assert between(DISTANCES[name][0], g, g) == pytest.approx(0, abs=1e-7)


def test_each_name_stands_for_its_distance_and_unit() -> None:
    assert {name: (law, unit) for name, (law, unit, _) in DISTANCES.items()} == {
        "E1_enl": (enl_ratio_error, "|ln ratio|"),
        "E3_jsd": (jensen_shannon, "bits"),
        "E3_kl": (kullback_leibler, "bits"),
        "E3_hellinger": (hellinger, ""),
        "E3_w1": (wasserstein_db, "dB"),
        "E3_level_spread": (level_spread_error, "|ln ratio|"),
        "E4_acf": (acf_error, ""),
        "E5_lsd": (log_spectral_distance, "dB"),
    }
