"""Resampling: power, looks, positions and seams."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from array_scenes import (
    array_reader,
    band_speckle,
    intensity,
    stored_as,
    white_speckle,
    whole,
)

from sarhpc.tiling.block import Sampling, read_block
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.grid import scene_frame
from sarhpc.tiling.orientation import inverse, transform
from sarhpc.tiling.resampling import (
    band_limited,
    band_plan,
    halo_px,
    intensity_taps,
    looks_factor,
)
from sarhpc.tiling.survey import survey_scene

SLC_RATIOS = [(0.2, 0.35), (0.25, 0.35), (0.35, 0.25), (0.31, 0.35), (0.1, 0.35)]


def surveyed(reader, **options):
    cfg = TileConfig(**{"pixel_m": 0.35, **options})
    frame = scene_frame(reader.header, cfg.pixel_m)
    constants = survey_scene(reader, frame, cfg)
    rows, cols = frame.shape
    block = read_block(reader, frame, constants.sampling, (0, rows), (0, cols))
    return block, constants


def enl(power):
    return power.mean() ** 2 / power.var()


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.32, -0.06), (-0.49, 0.45)])
def test_complex_resampling_keeps_mean_intensity_and_single_look_speckle(centre):
    reader = array_reader(band_speckle((1400, 1400), 0.8, centre))
    block, constants = surveyed(reader)
    inner = block.amplitude[30:-30, 30:-30].astype(np.float64)
    assert constants.sampling.method == "fft"
    assert constants.enl == 1
    assert np.mean(inner**2) == pytest.approx(1.0, rel=0.01)
    assert enl(inner**2) == pytest.approx(1.0, abs=0.02)
    assert inner.std() / inner.mean() == pytest.approx(0.5227, abs=0.005)


def test_mean_intensity_is_kept_when_the_spectrum_is_white():
    block, _ = surveyed(array_reader(white_speckle((1400, 1400))))
    assert np.mean(block.amplitude.astype(np.float64) ** 2) == pytest.approx(1.0, rel=0.01)


def test_the_survey_finds_the_centre_of_the_spectrum():
    _, constants = surveyed(array_reader(band_speckle((700, 700), 0.5, (0.32, -0.06))))
    assert constants.sampling.centroid == pytest.approx((0.32, -0.06), abs=0.01)


def test_a_band_around_its_centre_is_lost_if_the_centre_is_ignored():
    reader = array_reader(band_speckle((700, 700), 0.4, (0.32, 0.0)))
    frame = scene_frame(reader.header, 0.35)
    right = whole(reader, frame, centroid=(0.32, 0.0)).amplitude
    wrong = whole(reader, frame).amplitude
    assert np.mean(right**2) > 0.98
    assert np.mean(wrong**2) < 0.6


@pytest.mark.parametrize(("native", "target"), SLC_RATIOS)
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("direction", ["+col", "-col", "+row", "-row"])
def test_an_impulse_stays_an_impulse_at_its_place(direction, mirrored, native, target):
    affine = (native, 0.0, 500.0, 0.0, -native, 900.0)
    canonical = point_target((420, 560), (203.3, 318.8), width=0.45)
    pixels, stored = stored_as(canonical, affine, direction, mirrored)
    reader = array_reader(pixels, native, affine=stored, range_direction=direction)
    frame = scene_frame(reader.header, target)
    rows, cols = frame.shape
    power = whole(reader, frame).amplitude.astype(np.float64) ** 2
    peak = np.unravel_index(power.argmax(), power.shape)
    assert 0 < peak[0] < rows - 1
    assert 0 < peak[1] < cols - 1
    centre = centre_of_power(power, peak)
    ground = transform(frame.affine_at(0, 0), centre[::-1] + 0.5)
    true = transform(affine, np.array([318.8, 203.3]) + 0.5)
    assert np.abs(ground - true).max() / target < 0.02
    near = power[peak[0] - 9 : peak[0] + 10, peak[1] - 9 : peak[1] + 10].sum()
    assert near / power.sum() > 0.98


def point_target(shape, place, width):
    """A band-limited point (H, W) at a fractional (row, col), smooth spectrum of given width."""
    field = np.ones((1, 1), np.complex128)
    for axis, (n, p) in enumerate(zip(shape, place, strict=True)):
        f = np.fft.fftfreq(n)
        line = np.exp(-0.5 * (f / (0.12 * width)) ** 2) * np.exp(-2j * np.pi * f * p)
        field = field * (np.fft.ifft(line)[:, None] if axis == 0 else np.fft.ifft(line)[None, :])
    return (field / np.abs(field).max()).astype(np.complex64)


def centre_of_power(power, peak):
    rows, cols = np.indices(power.shape)
    near = np.s_[peak[0] - 12 : peak[0] + 13, peak[1] - 12 : peak[1] + 13]
    weight = power[near]
    return np.array([(rows[near] * weight).sum(), (cols[near] * weight).sum()]) / weight.sum()


@pytest.mark.parametrize(("native", "target"), SLC_RATIOS)
def test_blocks_with_a_halo_equal_the_whole_scene(native, target):
    pixels = band_speckle((900, 1100), 0.85, (0.2, 0.0), seed=3)
    pixels[450, 550] = 300  # a strong scatterer shows what leaks from block to block
    reader = array_reader(pixels, native)
    frame = scene_frame(reader.header, target)
    sampling = Sampling("fft", 0.1, (0.2, 0.0))
    reference = whole(reader, frame, centroid=(0.2, 0.0)).field
    rows, cols = frame.shape
    blocks = np.zeros_like(reference)
    for r in range(0, rows, 100):
        for c in range(0, cols, 130):
            place = (r, min(r + 100, rows)), (c, min(c + 130, cols))
            blocks[slice(*place[0]), slice(*place[1])] = read_block(
                reader, frame, sampling, *place
            ).field
    error = np.abs(blocks - reference)
    rms = np.sqrt(np.median(intensity(reference)))
    assert 20 * np.log10(error.max() / np.abs(reference).max()) < -60
    assert np.sqrt(np.mean(error**2)) / rms < 1e-2


@pytest.mark.parametrize("ratio", [Fraction(4, 7), Fraction(5, 7), Fraction(9, 7), Fraction(13, 7)])
def test_a_field_without_imaginary_part_stays_so(ratio):
    # Both sides of the band are kept alike; at some of these lengths the band holds an odd number.
    field = np.random.default_rng(0).normal(size=(2, 300)).astype(np.complex64)
    for count in range(60, 67):
        plan = band_plan((0, count), ratio, 0, 0.1, 0.0)
        found = band_limited(field[:, : plan.size], 1, plan, count)
        assert np.abs(found.imag).max() < 1e-5 * np.abs(found.real).max()


def test_the_halo_holds_the_kernel():
    assert halo_px(Fraction(4, 7), 0.1) == 97
    assert halo_px(Fraction(1), 0.1) == 0
    assert halo_px(Fraction(10, 7), 0.1) == 55


def test_intensity_average_keeps_the_mean_and_records_the_looks_it_makes():
    pixels = np.abs(white_speckle((1400, 1400)))
    block, constants = surveyed(array_reader(pixels))
    power = block.amplitude.astype(np.float64) ** 2
    assert constants.sampling.method == "multilook"
    assert power.mean() == pytest.approx(np.mean(pixels.astype(np.float64) ** 2), rel=1e-3)
    assert enl(power) == pytest.approx(constants.enl, rel=0.03)
    assert constants.enl == pytest.approx(4.54, rel=0.04)


def test_looks_are_corrected_for_the_correlation_of_speckle():
    pixels = np.abs(band_speckle((1400, 1400), 0.6))
    block, constants = surveyed(array_reader(pixels))
    assert enl(block.amplitude.astype(np.float64) ** 2) == pytest.approx(constants.enl, rel=0.04)
    assert constants.enl < 3.2


def test_texture_does_not_enter_the_looks():
    pixels = np.abs(white_speckle((1400, 1400)))
    pixels[:, 700:] *= 1 + np.arange(700) % 50
    _, constants = surveyed(array_reader(pixels))
    assert constants.enl == pytest.approx(4.54, rel=0.05)


def test_two_by_two_average_of_four_look_data_has_sixteen_looks():
    power = np.mean([intensity(white_speckle((800, 800), seed)) for seed in range(4)], axis=0)
    reader = array_reader(np.sqrt(power).astype(np.float32), 0.175, looks=4.0)
    block, constants = surveyed(reader)
    assert constants.enl == pytest.approx(16, rel=0.05)
    assert enl(block.amplitude.astype(np.float64) ** 2) == pytest.approx(16, rel=0.05)


def test_amplitude_finer_than_stored_is_interpolated_in_intensity_and_says_so():
    pixels = np.abs(white_speckle((500, 500)))
    block, constants = surveyed(array_reader(pixels, 0.5))
    power = block.amplitude.astype(np.float64) ** 2
    assert block.amplitude.shape == (714, 714)
    assert power.mean() == pytest.approx(np.mean(pixels.astype(np.float64) ** 2), rel=5e-3)
    assert enl(power) == pytest.approx(constants.enl, rel=0.04)
    assert constants.enl > 2


def test_intensity_taps_give_a_constant_back_everywhere():
    for ratio in (Fraction(4, 7), Fraction(6, 7), Fraction(10, 7), Fraction(1, 7)):
        taps = intensity_taps((0, 20), ratio, 0, 40)
        np.testing.assert_allclose(taps.weight.sum(axis=1), 1, atol=1e-6)
        assert looks_factor(taps, np.ones(1)) > 1


def test_amplitude_is_not_interpolated_across_invalid_pixels():
    pixels = np.full((350, 350), 2.0, np.float32)
    valid = np.ones(pixels.shape, bool)
    valid[:, :101] = False
    pixels[~valid] = 1e6
    block, _ = surveyed(array_reader(pixels, valid=valid))
    np.testing.assert_allclose(block.amplitude[block.valid], 2.0, rtol=1e-6)
    assert not block.valid[:, :57].any()
    assert block.valid[:, 58:].all()
    assert not block.amplitude[~block.valid].any()


def test_a_complex_pixel_is_valid_only_where_its_footprint_is():
    field = white_speckle((350, 350))
    valid = np.ones(field.shape, bool)
    valid[:101] = False
    block, _ = surveyed(array_reader(field, valid=valid))
    assert not block.valid[:58].any()
    assert block.valid[58:].all()


def test_values_that_are_not_finite_do_not_spread():
    field = white_speckle((700, 700))
    clean, _ = surveyed(array_reader(field.copy()))
    field[300:303, 300:303] = np.nan
    block, _ = surveyed(array_reader(field))
    assert np.isfinite(block.amplitude).all()
    lost = np.argwhere(~block.valid)
    assert 1 <= len(lost) <= 16
    np.testing.assert_array_equal(block.nonfinite, ~block.valid)
    np.testing.assert_allclose(block.amplitude[:90], clean.amplitude[:90], rtol=2e-2, atol=1e-3)


def test_detecting_first_averages_complex_scenes():
    reader = array_reader(white_speckle((1400, 1400)))
    block, constants = surveyed(reader, detect_first=True)
    assert constants.sampling.method == "multilook"
    assert block.field is None
    assert np.mean(block.amplitude.astype(np.float64) ** 2) == pytest.approx(1, rel=0.01)


def test_native_spacing_changes_nothing():
    field = white_speckle((64, 80))
    block, constants = surveyed(array_reader(field, 2.5), pixel_m=None)
    assert constants.sampling.method == "none"
    np.testing.assert_array_equal(block.field, field)
    np.testing.assert_array_equal(block.amplitude, np.abs(field))


def test_axes_are_resampled_each_by_its_own_ratio():
    reader = array_reader(band_speckle((1000, 1400)), (0.28, 0.2))
    block, _ = surveyed(reader)
    assert block.amplitude.shape == (800, 800)
    assert np.mean(block.amplitude[40:-40, 40:-40] ** 2) == pytest.approx(1, rel=0.015)


def test_affine_of_the_output_undoes_to_native_positions():
    frame = scene_frame(array_reader(np.zeros((70, 70), np.complex64)).header, 0.35)
    back = transform(inverse(frame.native_affine), transform(frame.affine_at(4, 8), np.zeros(2)))
    np.testing.assert_allclose(back, [14, 7], atol=1e-4)
