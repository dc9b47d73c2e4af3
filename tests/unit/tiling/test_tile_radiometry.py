"""Codes and back: the 8-bit picture, the 16-bit master, and what rejects a tile."""

from __future__ import annotations

import numpy as np
import pytest
from array_scenes import array_reader, white_speckle

from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.grid import scene_frame
from sarhpc.tiling.quality import reject_reason, tile_quality
from sarhpc.tiling.radiometry import (
    decode_master,
    decode_picture,
    encode_master,
    encode_picture,
)
from sarhpc.tiling.survey import SceneConstants, survey_scene, survey_windows


def rayleigh(shape=(256, 256), seed=0, scale=1.0):
    return np.abs(white_speckle(shape, seed)) * np.float32(scale)


def survey(pixels, spacing_m=0.35, valid=None, **options):
    cfg = TileConfig(**options)
    reader = array_reader(pixels, spacing_m, valid=valid)
    return survey_scene(reader, scene_frame(reader.header, cfg.pixel_m), cfg)


def test_the_picture_is_the_paper_formula():
    amplitude = rayleigh()
    top = float(amplitude.mean() + 3 * amplitude.std())
    expected = np.round(255 * np.minimum(amplitude.astype(np.float64) / top, 1))
    difference = encode_picture(amplitude, top).astype(int) - expected
    # float32 rounds a code that lies halfway to the other side now and then
    assert np.abs(difference).max() <= 1
    assert np.mean(difference != 0) < 1e-3


def test_the_picture_inverts_to_amplitude_within_half_a_code():
    amplitude = rayleigh()
    top = 3.0
    below = amplitude <= top
    back = decode_picture(encode_picture(amplitude, top), top)
    assert np.abs(back - amplitude)[below].max() <= top / 510 * 1.001
    np.testing.assert_allclose(back[~below], top)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_master_clips_nothing_and_inverts_within_half_a_code(scale):
    amplitude = rayleigh(scale=scale)
    amplitude[3, 4] = 500 * scale
    codes, step = encode_master(amplitude)
    assert codes.dtype == np.uint16
    assert codes.max() == 65535
    back = decode_master(codes, step)
    assert np.abs(back - amplitude).max() <= step / 2 * 1.01


def test_sigma0_of_an_extended_target_survives_the_master():
    amplitude = rayleigh(scale=0.1)
    codes, step = encode_master(amplitude)
    power = np.mean(decode_master(codes, step).astype(np.float64) ** 2)
    assert 10 * np.log10(power / np.mean(amplitude.astype(np.float64) ** 2)) == pytest.approx(
        0, abs=0.001
    )


def test_a_master_of_nothing_is_zero():
    codes, step = encode_master(np.zeros((4, 4), np.float32))
    assert not codes.any()
    assert step == 1.0


def test_constants_are_mean_and_deviation_of_all_valid_pixels():
    pixels = rayleigh((300, 400))
    valid = np.ones(pixels.shape, bool)
    valid[:, :100] = False
    pixels[~valid] = 77
    found = survey(pixels, valid=valid).normalisation
    known = pixels[valid].astype(np.float64)
    assert found.mu == pytest.approx(known.mean(), rel=1e-5)
    assert found.sigma == pytest.approx(known.std(), rel=1e-5)
    assert found.top == pytest.approx(known.mean() + 3 * known.std(), rel=1e-5)
    # Rayleigh amplitude: mu + 3 sigma = 2.568 mu, and 0.57 % of the pixels are above.
    assert found.top / found.mu == pytest.approx(2.568, rel=0.01)
    assert np.mean(known > found.top) == pytest.approx(0.0057, abs=0.001)


def test_the_percentile_mode_takes_the_percentile():
    pixels = rayleigh()
    found = survey(pixels, normalisation="percentile", percentile=99.0).normalisation
    assert found.mode == "percentile"
    assert found.top == pytest.approx(np.percentile(pixels, 99), rel=1e-5)


def test_constants_pass_through_json():
    found = survey(white_speckle((300, 300)), 0.2)
    assert SceneConstants.from_json(found.to_json()) == found


def test_a_scene_without_valid_pixel_has_no_constants():
    assert survey(rayleigh(), valid=np.zeros((256, 256), bool)) is None


@pytest.mark.parametrize("shape", [(300, 40), (1024, 1024), (3000, 2500)])
def test_a_small_scene_is_measured_whole_once(shape):
    windows, share = survey_windows(shape, 16)
    seen = np.zeros(shape, int)
    for rows, cols in windows:
        seen[slice(*rows), slice(*cols)] += 1
    assert share == 1
    assert (seen == 1).all()


def test_a_large_scene_is_sampled_evenly():
    windows, share = survey_windows((17_000, 23_000), 16)
    assert len(set(windows)) == len(windows) == 244
    assert share == pytest.approx(16e6 / (17_000 * 23_000), rel=0.05)
    rows, cols = (np.array([w[axis][0] for w in windows]) for axis in (0, 1))
    counts, _, _ = np.histogram2d(rows, cols, bins=4)
    assert counts.min() >= 10
    assert survey_windows((17_000, 23_000), 16)[0] == windows


def test_the_sample_of_a_large_scene_meets_the_whole_within_the_stated_error():
    rng = np.random.default_rng(1)
    fields = rng.gamma(6, 1 / 6, (40, 40)).astype(np.float32)
    pixels = rayleigh((2400, 2400)) * np.kron(fields, np.ones((60, 60), np.float32))
    whole = survey(pixels, survey_mpx=16).normalisation
    part = survey(pixels, survey_mpx=1.4)
    assert part.surveyed < 0.3
    assert part.normalisation.mu == pytest.approx(whole.mu, rel=0.06)
    assert part.normalisation.top == pytest.approx(whole.top, rel=0.06)


def quality(amplitude, valid=None, nonfinite=None, top=2.276):
    mask = np.ones(amplitude.shape, bool) if valid is None else valid
    return tile_quality(amplitude, mask, nonfinite, top)


def test_ordinary_speckle_is_kept():
    assert reject_reason(quality(rayleigh()), TileConfig()) is None


def test_zeros_inside_the_scene_are_shadow_and_kept():
    amplitude = rayleigh()
    amplitude[:, 128:] = 0
    found = quality(amplitude)
    assert found.valid_fraction == 1
    assert reject_reason(found, TileConfig()) is None


def test_gaps_beyond_the_limit_reject_as_nodata():
    valid = np.ones((256, 256), bool)
    valid[:12] = False
    assert reject_reason(quality(rayleigh(), valid), TileConfig()) is None
    valid[:13] = False
    assert reject_reason(quality(rayleigh(), valid), TileConfig()) == "nodata"
    assert reject_reason(quality(rayleigh(), valid), TileConfig(min_valid=0.9)) is None


def test_a_tile_without_any_data_is_nodata():
    assert reject_reason(quality(rayleigh(), np.zeros((256, 256), bool)), TileConfig()) == "nodata"


def test_broken_numbers_beyond_the_limit_reject_as_nonfinite():
    valid = np.ones((256, 256), bool)
    valid[:40] = False
    assert reject_reason(quality(rayleigh(), valid, ~valid), TileConfig()) == "nonfinite"


def test_too_many_pixels_at_the_top_reject_as_saturated():
    amplitude = rayleigh()
    amplitude[:20] = 5
    found = quality(amplitude)
    assert found.saturated_fraction == pytest.approx(20 / 256 + 0.0057 * 236 / 256, abs=2e-3)
    assert reject_reason(found, TileConfig()) == "saturated"
    assert reject_reason(found, TileConfig(max_saturated=0.1)) is None


def test_flat_or_dark_tiles_reject_as_no_signal():
    assert reject_reason(quality(np.zeros((64, 64), np.float32)), TileConfig()) == "no_signal"
    assert reject_reason(quality(np.ones((64, 64), np.float32)), TileConfig()) == "no_signal"
    assert reject_reason(quality(rayleigh(scale=0.003)), TileConfig()) == "no_signal"
    water_27_db_down = rayleigh(scale=0.045)
    assert reject_reason(quality(water_27_db_down), TileConfig()) is None
