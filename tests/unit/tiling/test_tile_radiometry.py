"""Codes and back: the 8-bit picture, the 16-bit master, and what rejects a tile."""

from __future__ import annotations

import json

import numpy as np
import pytest
from array_scenes import array_reader, white_speckle

from hpc.errors import ConfigError, DataError
from sarhpc.shards.radiometry import (
    Normalisation,
    decode_log_master,
    decode_master,
    encode_log_master,
    encode_master,
    encode_picture,
    master_amplitude,
)
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.config_checks import check_config
from sarhpc.tiling.grid import scene_frame
from sarhpc.tiling.quality import reject_reason, tile_quality
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
    back = encode_picture(amplitude, top) * np.float32(top / 255)
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


LAWS = {
    "mu+3sigma": {},
    "percentile": {"percentile": 99.5},
    "db": {"db_window": [-30.0, 10.0]},
    "log": {"log_range": [-4.0, 2.0]},
    "log1p": {},
}


def decibels(amplitude):
    return 20 * np.log10(np.maximum(amplitude.astype(np.float64), 1e-30))


@pytest.mark.parametrize("mode", LAWS)
def test_every_law_inverts_to_sigma0_within_a_hundredth_of_a_db_where_unclipped(mode):
    """The law itself: what 8 bits round away is the picture's, and the master keeps it."""
    amplitude = rayleigh((512, 512), scale=0.5)
    found = survey(amplitude, normalisation=mode, **LAWS[mode]).normalisation
    level = found.levels(amplitude)
    unclipped = (level > 0) & (level < 1)
    assert unclipped.mean() > 0.8
    error = decibels(found.amplitudes(level)) - decibels(amplitude)
    assert np.abs(error[unclipped]).max() < 0.01
    clipped_high = amplitude >= found.top
    assert (found.encode(amplitude)[clipped_high] == 255).all()


@pytest.mark.parametrize("mode", LAWS)
def test_a_picture_inverts_within_half_a_code_by_its_json_alone(mode):
    amplitude = rayleigh((128, 128), scale=0.5)
    found = survey(amplitude, normalisation=mode, **LAWS[mode]).normalisation
    again = Normalisation.from_json(json.loads(json.dumps(found.to_json())))
    codes = found.encode(amplitude)
    level = found.levels(amplitude)
    back = again.levels(again.decode(codes))
    assert np.abs(back - level).max() <= 1 / 510 + 1e-5
    assert codes[amplitude <= (found.low or 0)].sum() == 0


def test_logarithmic_laws_are_the_published_formulas():
    amplitude = rayleigh((64, 64), scale=300)
    merlin = survey(amplitude, normalisation="log").normalisation
    expected = np.clip((np.log(amplitude.astype(float)) + 1.4293) / (10.089 + 1.4293), 0, 1)
    np.testing.assert_allclose(merlin.levels(amplitude), expected, atol=1e-6)
    sigma0 = rayleigh((64, 64), scale=0.2) ** 2
    nasar = survey(np.sqrt(sigma0), normalisation="log1p").normalisation
    expected = (np.clip(np.log1p(20 * sigma0.astype(float)), 0.15, 2.39) - 0.15) / (2.39 - 0.15)
    np.testing.assert_allclose(nasar.levels(np.sqrt(sigma0)), expected, atol=1e-5)


def test_a_db_window_of_its_own_scene_takes_percentiles_of_what_is_lit():
    amplitude = rayleigh((256, 256))
    amplitude[:100] = 0
    found = survey(amplitude, normalisation="db", percentile=99.0).normalisation
    lit = amplitude[amplitude > 0]
    assert found.low == pytest.approx(np.percentile(lit, 1), rel=1e-5)
    assert found.top == pytest.approx(np.percentile(lit, 99), rel=1e-5)
    # Shadow is black, not minus infinity.
    assert (found.encode(amplitude)[:100] == 0).all()


def test_the_linear_master_keeps_a_hundredth_of_a_db_over_43_db():
    peak = 10.0
    for below_db, within in ((43.5, True), (47, False)):
        level = peak * 10 ** (-below_db / 20)
        # Halfway between two codes, where rounding is worst.
        worst = (np.floor(level / peak * 65535) + 0.5) * peak / 65535
        codes, scale = encode_master(np.array([[peak, worst]], np.float32))
        error = abs(decibels(decode_master(codes, scale)) - decibels(np.array([[peak, worst]])))
        assert bool(error.max() < 0.01) is within


def test_the_logarithmic_master_keeps_a_thousandth_of_a_db_over_130_db():
    level = np.linspace(-110, 20, 100_000).reshape(100, 1000)
    amplitude = (10 ** (level / 20)).astype(np.float32)
    amplitude[0, 0] = 0
    codes, lowest = encode_log_master(amplitude)
    back = decode_log_master(codes, lowest)
    assert back[0, 0] == 0
    assert codes.max() == 65535
    error = (decibels(back) - decibels(amplitude)).ravel()[1:]
    assert np.abs(error).max() < 0.0011
    nothing, scale = encode_log_master(np.zeros((4, 4), np.float32))
    assert not nothing.any()
    assert scale == 1.0


def test_the_metadata_names_the_law_of_its_master():
    amplitude = rayleigh((32, 32))
    linear, scale = encode_master(amplitude)
    log, lowest = encode_log_master(amplitude)
    by_log = {"master_scale": lowest, "master_law": "log", "master_step_db": 0.002}
    np.testing.assert_allclose(master_amplitude(linear, {"master_scale": scale}), amplitude, 0.01)
    np.testing.assert_allclose(master_amplitude(log, by_log), amplitude, 2e-4)
    with pytest.raises(DataError, match="master_law 'cube'"):
        master_amplitude(log, {**by_log, "master_law": "cube"})
    with pytest.raises(DataError, match="read it with the version"):
        master_amplitude(log, {**by_log, "master_step_db": 0.01})


@pytest.mark.parametrize(
    "wrong",
    [
        {"normalisation": "sqrt"},
        {"master": "cube"},
        {"db_window": [5.0, -30.0]},
        {"log_range": [1.0]},
        {"log1p_range": [-0.1, 2.0]},
        {"log1p_gain": 0.0},
    ],
)
def test_laws_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        check_config(TileConfig(**wrong))
