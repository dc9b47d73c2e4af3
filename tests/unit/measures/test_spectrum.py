"""E5 by closed forms: white noise, single waves, lines of known power over a known continuum."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sarhpc.measures.defects import gained, gridded
from sarhpc.measures.spectrum import (
    grid_lines_db,
    log_spectral_distance,
    measure_spectrum,
)

LOG_VARIANCE = math.pi**2 / 24
"""Variance of ln A of single-look speckle: psi_1(1) / 4."""


def speckle(rows: int, columns: int | None = None, seed: int = 0) -> np.ndarray:
    """Amplitude of independent single-look pixels."""
    rng = np.random.default_rng(seed)
    return np.sqrt(rng.exponential(size=(rows, columns or rows)))


def test_white_speckle_has_its_variance_in_every_bin() -> None:
    found = measure_spectrum(speckle(512))
    # 16 frequencies a bin, neighbours correlated by the window (2.1 of them are one), and about
    # half of 225 overlapping segments independent: 9 % x 1 / sqrt(16 / 4.4 x 118) = 5 % per bin.
    assert np.abs(found.pooled / LOG_VARIANCE - 1).max() < 4 * 0.05
    assert found.pooled.mean() == pytest.approx(LOG_VARIANCE, rel=0.01)
    assert found.radial.mean() == pytest.approx(LOG_VARIANCE, rel=0.02)
    assert found.pooled.shape == (256,)
    assert found.radial.shape == (32,)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_is_found_at_its_frequency_and_along_its_axis(axis: int) -> None:
    x = np.arange(256)[:, None] if axis == 0 else np.arange(256)
    wave = 0.2 * np.cos(2 * np.pi * x * 11 / 64) + np.zeros((256, 256))
    found = measure_spectrum(np.exp(wave + 1e-3 * np.random.default_rng(0).normal(size=wave.shape)))
    pooled = found.pooled.reshape(16, 16)
    expected = (8 + 11 // 4, 8) if axis == 0 else (8, 8 + 11 // 4)
    peaks = [np.unravel_index(i, (16, 16)) for i in np.argsort(pooled.ravel())[-4:]]
    assert expected in peaks
    assert int(found.radial.argmax()) + 1 == 11


@pytest.mark.parametrize("size", [64, 96, 128, 200, 512])
def test_no_lines_read_0_db_at_every_size(size: int) -> None:
    tiles = max(3, 40 * 64 * 64 // size**2)
    levels = [measure_spectrum(speckle(size, seed=n)).lines_db for n in range(tiles)]
    each = [grid_lines_db(level) for level in levels]
    # ln of a power of two degrees of freedom varies by pi^2 / 6: one tile of 64 px has one segment,
    # 8 lines, each against 4 neighbours, 6 of the lines weighing as much.
    expected = 10 / math.log(10) * math.pi / math.sqrt(6) * math.sqrt(1.25 / 6.7)
    assert grid_lines_db(np.array(levels)) == pytest.approx(0, abs=4 * expected / 40**0.5)
    if size == 64:
        assert np.std(each) == pytest.approx(expected, rel=0.4)


def test_the_line_at_half_a_cycle_reads_0_db_too() -> None:
    """Its power has one degree of freedom, whose mean logarithm is lower by ln 2: 3 dB."""
    levels = np.array([measure_spectrum(speckle(64, seed=n)).lines_db for n in range(300)])
    # pi^2 / 2 and pi^2 / 6 / 2 for the two neighbours and their mirror images, 600 values.
    error = 10 / math.log(10) * math.pi * math.sqrt((1 / 2 + 1 / 12) / 600)
    assert levels[:, :, 3].mean() == pytest.approx(0, abs=4 * error)


@pytest.mark.parametrize("size", [64, 256, 512])
def test_a_pattern_of_half_a_decibel_is_seen(size: int) -> None:
    tiles = max(2, 60 * 64 * 64 // size**2)
    levels = np.array(
        [measure_spectrum(gridded(speckle(size, seed=n), 0.5)).lines_db for n in range(tiles)]
    )
    # A step of ln A by h in one of 8 rows has the coefficient h / 8 at each line; a segment of
    # n = 64 px with a Hann window adds 2/3 of n^2 (h / 8)^2 to the power density, 4/9 of it once
    # more across: (sum w)^2 / sum w^2 = (2/3)^2 n^2.
    h = 0.5 * math.log(10) / 20
    signal = (4 / 9) * 64**2 * (h / 8) ** 2 / LOG_VARIANCE
    # The mean of ln(power) rises by a little less than ln(1 + signal).
    expected = 10 * math.log10(1 + signal)
    assert 0.5 * expected < grid_lines_db(levels) < 1.3 * expected
    assert grid_lines_db(levels) > 0.2


def test_rows_and_columns_of_a_grid_are_told_apart() -> None:
    A = speckle(256)
    A[::8] *= 10 ** (2 / 20)
    azimuth, along_range = measure_spectrum(A).lines_db
    assert azimuth[:3].min() > 4
    assert np.abs(along_range).max() < 4


def test_turning_a_tile_swaps_the_lines_of_its_axes() -> None:
    A = speckle(128)
    turned, straight = (measure_spectrum(one).lines_db for one in (A.T, A))
    np.testing.assert_allclose(turned, straight[::-1], rtol=1e-3, atol=1e-4)


def test_a_wave_of_twice_the_amplitude_is_6_db_stronger() -> None:
    noise = np.random.default_rng(4).normal(scale=0.01, size=(128, 128))
    wave = np.cos(np.arange(128) * np.pi / 4)
    weak, strong = (measure_spectrum(np.exp(noise + a * wave)).lines_db[1, 0] for a in (0.1, 0.2))
    assert strong - weak == pytest.approx(20 * math.log10(2), abs=0.05)


def test_a_gain_changes_nothing_and_zeros_have_a_level() -> None:
    A = speckle(128)
    A[:3] = 0
    one, other = measure_spectrum(A), measure_spectrum(gained(A, 40))
    np.testing.assert_allclose(one.pooled, other.pooled, rtol=1e-4)
    assert np.isfinite(one.lines_db).all()


def test_a_spectrum_times_ten_is_ten_decibels_away() -> None:
    power = np.linspace(1, 2, 256)
    assert log_spectral_distance(power * 10, power) == pytest.approx(10)
    some = power.copy()
    some[:64] *= 100
    assert log_spectral_distance(some, power) == pytest.approx(20 * math.sqrt(1 / 4))
    assert log_spectral_distance(power, power) == 0


def test_what_has_no_spectrum_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64 x 64"):
        measure_spectrum(speckle(63, 80))
    mostly_empty = speckle(64)
    mostly_empty[:40] = 0
    with pytest.raises(ValueError, match="more than half of the pixels are 0"):
        measure_spectrum(mostly_empty)
    with pytest.raises(ValueError, match="same kind"):
        log_spectral_distance(np.ones(256), np.ones(32))
    with pytest.raises(ValueError, match="no power"):
        log_spectral_distance(np.zeros(256), np.ones(256))


def test_a_continuum_that_falls_with_frequency_is_no_line() -> None:
    """Scenes have more power at low frequencies: the plain mean of the neighbours lies above it."""
    f = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512))
    f[0, 0] = 1
    levels = []
    for seed in range(20):
        white = np.fft.fft2(np.random.default_rng(seed).normal(size=(512, 512)))
        field = np.fft.ifft2(white / f).real  # power as 1 / f^2
        levels.append(measure_spectrum(np.exp(0.3 * field / field.std())).lines_db)
    # Two axes, 20 tiles, about 118 independent segments: 5.6 dB x sqrt(1.25 / 4720) = 0.09 dB.
    found = np.mean(levels, axis=(0, 1))
    assert np.abs(found[:3]).max() < 3 * 0.09
    # At half a cycle the spectrum has a cusp, which is not corrected and weighs a tenth.
    assert abs(grid_lines_db(np.array(levels))) < 0.2
