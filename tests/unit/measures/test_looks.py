"""E1: the three numbers of looks on speckle whose looks and band are known."""

from __future__ import annotations

import numpy as np
import pytest
from speckle_fields import speckle, theory

from sarhpc.measures.looks import (
    LN_EDGES,
    effective_samples,
    enl_mode,
    local_enl_histogram,
    log_cumulant_enl,
    moment_enl,
)
from sarhpc.measures.speckle_correlation import lag_products, speckle_autocorrelation


@pytest.mark.parametrize("looks", [1, 2, 4, 8])
def test_each_estimator_reads_the_looks_within_3_percent(looks: int) -> None:
    """Over 512 x 512 px the three scatter by 0.5 % each (12 draws); the mode is 0.8 % biased."""
    I = speckle(np.random.default_rng(looks), looks=looks)  # noqa: E741
    acf = speckle_autocorrelation(lag_products(I), looks)
    assert moment_enl(I) == pytest.approx(looks, rel=0.03)
    assert log_cumulant_enl(I) == pytest.approx(looks, rel=0.03)
    assert enl_mode(local_enl_histogram(I), acf) == pytest.approx(looks, rel=0.03)


@pytest.mark.long
@pytest.mark.parametrize("band", [0.8, 0.5])
@pytest.mark.parametrize("looks", [1, 2, 4, 8])
def test_what_the_correction_of_the_mode_leaves(band: float, looks: int) -> None:
    """The table of the guide; the mean over 12 tiles of 512 px is known to 0.2 %."""
    rng = np.random.default_rng(8)
    tiles = [speckle(rng, 512, looks, (band, band)) for _ in range(12)]
    acf = theory((band, band))
    read = np.array([enl_mode(local_enl_histogram(tile), acf) for tile in tiles]) / looks
    print(f"\nband {band} looks {looks}: mean {read.mean():.4f} deviation {read.std():.4f}", end="")
    assert read.mean() == pytest.approx(1, abs=0.012 if band == 0.8 else 0.05)


def test_effective_samples_are_sums_over_all_pairs_of_a_window() -> None:
    acf, side = theory((0.8, 0.5)), 5
    near = [np.concatenate([[1.0], axis]) for axis in acf]
    places = [(y, x) for y in range(side) for x in range(side)]
    rho = [near[0][abs(y - b)] * near[1][abs(x - a)] for y, x in places for b, a in places]
    expected = (1 / np.mean(rho), 1 / np.mean(np.square(rho)))
    assert effective_samples(acf, side) == pytest.approx(expected)
    assert effective_samples(np.zeros((2, 5)), 9) == pytest.approx((81, 81))
    # The figures of the docstring.
    assert effective_samples(theory(), 9) == pytest.approx((26, 48), abs=0.5)


@pytest.mark.parametrize("looks", [1, 4])
def test_the_mean_of_the_log_of_local_enl_is_the_expansion(looks: int) -> None:
    """Window of 15 px: terms of order 1/N^2 are 0.002; 512 px scatter by 0.003 (1 / sqrt(N2))."""
    rng = np.random.default_rng(3)
    histogram = np.mean([local_enl_histogram(speckle(rng, 512, looks), 15) for _ in range(2)], 0)
    mean = float(histogram @ (LN_EDGES[1:] + LN_EDGES[:-1])) / 2 - np.log(looks)
    excess = sum(1 / n for n in effective_samples(theory(), 15))
    assert mean == pytest.approx((1 + 1 / looks) * excess, abs=0.01)


def test_a_scene_of_fields_reads_as_its_uniform_parts() -> None:
    """A grid of 48 px fields spread over 20 dB: 40 % of the windows hold an edge."""
    rng = np.random.default_rng(4)
    level = 10 ** rng.uniform(-2, 0, (11, 11))
    scene = speckle(rng) * np.kron(level, np.ones((48, 48)))[:512, :512]
    assert moment_enl(scene) < 0.6
    assert enl_mode(local_enl_histogram(scene), theory()) == pytest.approx(1, rel=0.05)


def test_two_draws_never_read_the_same() -> None:
    """Read from 5.9 % bins, the mode of two sets of real tiles was the same in 17 % of draws."""
    rng = np.random.default_rng(5)
    histograms = [local_enl_histogram(speckle(rng, 128)) for _ in range(20)]
    read = sorted(enl_mode(histogram, theory()) for histogram in histograms)
    assert min(np.diff(read)) > 0
    assert np.std(read) < 0.05


def test_a_bright_target_moves_only_the_windows_that_hold_it() -> None:
    """Running sums would leave the rounding of 1e24 in all windows after it."""
    I = speckle(np.random.default_rng(6), 128)  # noqa: E741
    with_target = I.copy()
    with_target[40, 40] = 1e12
    moved = np.abs(local_enl_histogram(with_target) - local_enl_histogram(I)).sum() / 2
    assert moved <= 81 / 120**2 + 1e-12


def test_levels_do_not_matter() -> None:
    I = speckle(np.random.default_rng(7), 128)  # noqa: E741
    for estimate in (moment_enl, log_cumulant_enl):
        assert estimate(I * 1e-6) == pytest.approx(estimate(I))
    assert np.array_equal(local_enl_histogram(I * 2.0**-20), local_enl_histogram(I))


def broken(value: float) -> np.ndarray:
    I = speckle(np.random.default_rng(0), 64)  # noqa: E741
    I[3, 4] = value
    return I


@pytest.mark.parametrize("estimate", [moment_enl, log_cumulant_enl, local_enl_histogram])
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (broken(np.nan), "1 values are NaN"),
        (broken(np.inf), "1 values are NaN or infinite"),
        (broken(-1.0), "1 values are negative"),
        (np.full((64, 64), 0.3), "constant, 0.3 everywhere"),
        (np.zeros((64, 64)), r"constant|values are 0"),
        (np.ones((3, 3)), "9 values, at least 64"),
    ],
)
def test_what_is_no_speckle_gets_no_number(estimate, image: np.ndarray, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        estimate(image)


def test_refusals_of_the_log_cumulant_and_of_windows() -> None:
    I = speckle(np.random.default_rng(0), 64)  # noqa: E741
    with pytest.raises(ValueError, match="1 values are 0 and have no logarithm"):
        log_cumulant_enl(broken(0.0))
    with pytest.raises(ValueError, match=r"shape \(16, 64\): an image of 18 x 18 px"):
        local_enl_histogram(I[:16])
    with pytest.raises(ValueError, match="window of 8 px: odd"):
        local_enl_histogram(I, 8)
    gap = I.copy()
    gap[10:30, 10:30] = 0
    with pytest.raises(ValueError, match="windows of 9 px are 0 everywhere"):
        local_enl_histogram(gap)
    with pytest.raises(ValueError, match="there is no speckle of ENL"):
        enl_mode(np.zeros(600), theory())
    for end in (0, 599):
        with pytest.raises(ValueError, match="has its maximum at its ends"):
            enl_mode(np.eye(600)[end], theory())
    with pytest.raises(ValueError, match=r"shape \(5,\): finite \(2, lags\)"):
        effective_samples(np.zeros(5))
    with pytest.raises(ValueError, match=r"shape \(2,\): finite \(2, lags\)"):
        effective_samples(np.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(3, 5\): finite \(2, lags\)"):
        effective_samples(np.zeros((3, 5)))
