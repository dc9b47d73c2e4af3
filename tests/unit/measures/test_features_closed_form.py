"""What is measured on a tile, by hand: patterns that differ along the two axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter

from sarhpc.measures.features import (
    DB_EDGES,
    ENL_EDGES,
    amplitude,
    db_histogram,
    look_histogram,
    measure,
    speckle_acf,
    spectrum,
)


def windows(image: np.ndarray, box: int) -> np.ndarray:
    """Every `box` x `box` window (H, W, box, box), the image continued by its mirror."""
    return sliding_window_view(np.pad(image, box // 2, mode="symmetric"), (box, box))


def test_codes_are_amplitudes_of_full_scale_and_0_is_half_a_code() -> None:
    codes = np.array([[0, 1, 51, 255]], np.uint8)
    assert amplitude(codes).tolist() == [[0.5 / 255, 1 / 255, 0.2, 1.0]]


@pytest.mark.parametrize(
    ("A", "bin_"),
    [
        (1.0, math.floor(45 / 70 * 256)),
        (0.1, math.floor(25 / 70 * 256)),
        (10.0, math.floor(65 / 70 * 256)),
        (1e-9, 0),
        (1e9, 255),
    ],
)
def test_levels_are_20_log_of_the_amplitude(A: float, bin_: int) -> None:
    image = np.full((4, 4), 0.5)
    image[0] = A
    found = db_histogram(image)
    assert found.shape == (256,)
    assert found[bin_] == 0.25
    assert found.sum() == 1
    assert (DB_EDGES[0], DB_EDGES[-1], DB_EDGES.size) == (-45, 25, 257)


def test_looks_are_mean_squared_over_unbiased_variance_of_each_window() -> None:
    I = np.random.default_rng(0).exponential(size=(24, 31))  # noqa: E741
    each = windows(I, 9)
    enl = each.mean((2, 3)) ** 2 / each.var((2, 3), ddof=1)
    expected = np.histogram(enl, ENL_EDGES)[0] / enl.size
    np.testing.assert_allclose(look_histogram(I), expected)
    assert expected.sum() == 1


def test_looks_beyond_the_scale_count_at_its_ends() -> None:
    assert look_histogram(np.ones((16, 16)))[-1] == 1
    spike = np.zeros((9, 9))
    spike[4, 4] = 1.0
    # In the middle window one pixel of 81: mean^2 / variance = 1/81, below the first edge.
    assert look_histogram(spike)[0] > 0
    assert (ENL_EDGES[0], ENL_EDGES[-1], ENL_EDGES.size) == pytest.approx((0.05, 50, 121))


@pytest.mark.parametrize("level", [0.003, 0.1, 0.3, 0.7, 0.9, 1.0])
def test_even_ground_has_the_most_looks_whatever_rounding_makes_of_its_variance(
    level: float,
) -> None:
    assert look_histogram(np.full((30, 30), level))[-1] == 1


@pytest.mark.parametrize("contrast", [0.3, 0.003])
def test_the_autocorrelation_of_a_wave_along_azimuth_is_a_cosine_there_and_1_along_range(
    contrast: float,
) -> None:
    # Of half a period the mirror at the edge continues the wave, and 15 rows hold it whole.
    phase = 2 * np.pi * (np.arange(60) + 0.5) / 15
    I = np.repeat(1 + contrast * np.cos(phase)[:, None], 50, axis=1)  # noqa: E741
    along_range, along_azimuth = speckle_acf(I)
    np.testing.assert_allclose(along_azimuth, np.cos(2 * np.pi * np.arange(1, 6) / 15), atol=1e-12)
    np.testing.assert_allclose(along_range, 1, atol=1e-12)
    along_range, along_azimuth = speckle_acf(I.T)
    np.testing.assert_allclose(along_range, np.cos(2 * np.pi * np.arange(1, 6) / 15), atol=1e-12)
    np.testing.assert_allclose(along_azimuth, 1, atol=1e-12)


def test_the_autocorrelation_is_that_of_speckle_over_its_local_mean() -> None:
    rng = np.random.default_rng(4)
    ground = np.linspace(1, 30, 37)[:, None] * np.linspace(1, 5, 44)
    I = ground * uniform_filter(rng.exponential(size=(37, 44)), (2, 3))  # noqa: E741
    ratio = I / windows(I, 15).mean((2, 3))
    ratio = ratio - ratio.mean()
    for axis, found in ((1, speckle_acf(I)[0]), (0, speckle_acf(I)[1])):
        shifted = [np.roll(ratio, -lag, axis) for lag in range(1, 6)]
        expected = [(ratio * moved).sum() / (ratio**2).sum() for moved in shifted]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_an_even_tile_has_no_autocorrelation() -> None:
    along_range, along_azimuth = speckle_acf(np.full((32, 32), 0.25))
    assert np.abs([along_range, along_azimuth]).max() < 1e-3


def test_a_wave_along_range_stands_in_its_bins_of_the_spectrum() -> None:
    col = np.arange(64)
    A = np.exp(np.repeat(0.2 * np.cos(2 * np.pi * 16 * col / 64)[None], 64, axis=0))
    power = spectrum(A).reshape(16, 16)
    # Bins of 4 frequencies, zero in bin 8: +16 of 64 is bin 12, -16 bin 4.
    top = {(int(i), int(j)) for i, j in zip(*np.nonzero(power > power.max() / 2), strict=True)}
    assert {(8, 4), (8, 12)} <= top <= {(row, col) for row in (7, 8) for col in (3, 4, 11, 12)}
    assert np.allclose(spectrum(A.T).reshape(16, 16), power.T)


def test_the_spectrum_holds_the_power_of_the_windowed_log_amplitude() -> None:
    A = np.exp(np.random.default_rng(1).normal(size=(64, 48)))
    window = np.outer(np.hanning(64), np.hanning(48))
    field = np.log(A) - np.log(A).mean()
    # Parseval: all frequencies together, per frequency, in units of the window's power.
    assert spectrum(A).mean() == pytest.approx(((field * window) ** 2).sum() / (window**2).sum())
    assert np.allclose(spectrum(A * 7.0), spectrum(A)), "a gain is no texture"


def lopsided(seed: int) -> np.ndarray:
    """A tile (40, 56) with bright-then-dark stripes along range and some clipped pixels."""
    rng = np.random.default_rng(seed)
    tile = rng.integers(20, 90, (40, 56))
    tile[:, 10:14], tile[:, 14:26] = 250, 3
    tile[0, :7] = 255
    return tile.astype(np.uint8)


def test_measures_of_a_set_are_those_of_its_tiles_under_their_names() -> None:
    stack = [lopsided(0), lopsided(1), lopsided(2)]
    found = measure(stack)
    assert len(found) == 3
    for row, tile in enumerate(stack):
        A = amplitude(tile)
        assert np.array_equal(found.histogram[row], db_histogram(A))
        assert np.array_equal(found.looks[row], look_histogram(A**2))
        along_range, along_azimuth = speckle_acf(A**2)
        assert np.array_equal(found.acf_range[row], along_range)
        assert np.array_equal(found.acf_azimuth[row], along_azimuth)
        assert not np.allclose(along_range, along_azimuth)
        assert np.array_equal(found.psd[row], spectrum(A))
        assert found.mean_db[row] == pytest.approx(10 * math.log10((A**2).mean()))
        assert found.clipped[row] == 7 / (40 * 56)
    part = found.subset(np.array([2, 0]))
    assert part.mean_db.tolist() == [found.mean_db[2], found.mean_db[0]]
    assert np.array_equal(part.acf_azimuth, found.acf_azimuth[[2, 0]])
