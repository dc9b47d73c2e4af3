"""One dB window for an archive: what it clips in closed form, outliers, order of the scenes."""

from __future__ import annotations

import logging
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from array_scenes import ArrayArchive, array_reader, white_speckle

from hpc.config import decisive, fingerprint
from hpc.errors import ConfigError
from sarhpc.archive.scene import Scene
from sarhpc.shards.images import decode_array, decode_gray8
from sarhpc.shards.radiometry import Normalisation, amplitude_of_db, master_amplitude
from sarhpc.shards.tile_contract import contract_of_tiles
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.config_checks import check_config
from sarhpc.tiling.db_window import (
    LOW_SHARE,
    MOST_CLIPPED,
    STEP_DB,
    LevelTally,
    archive_window,
    scene_window,
)
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

CFG = TileConfig(
    tile_px=64, pixel_m=0.35, normalisation="db", db_scope="archive", master="log",
    min_valid=0.0, shard_samples=9, split=SplitConfig(fractions=[1.0, 0.0, 0.0]),
)  # fmt: skip


def exponential(power, pixels=40_000):
    """Amplitude (N,) at even quantiles of fully developed speckle: intensity is exponential."""
    share = (np.arange(pixels) + 0.5) / pixels
    return np.sqrt(-power * np.log1p(-share)).astype(np.float32)


def levels(*amplitudes, gain=1.0):
    tally = LevelTally()
    for amplitude in amplitudes:
        tally.add(amplitude)
    found = tally.counted(gain)
    assert found is not None
    return found


@pytest.mark.parametrize("power", [1e-6, 0.03, 1.0, 1e9])
def test_the_window_of_speckle_is_that_of_the_exponential_distribution(power):
    low_db, top_db = scene_window(levels(exponential(power, 2_000_000)))
    mean_db = 10 * math.log10(power)
    # Clipped at T times the mean, exp(-T) of the power is lost; of 1 % of the pixels I < 0.01005.
    exact = 10 * math.log10(-math.log(MOST_CLIPPED))
    assert exact <= top_db - mean_db <= exact + 2 * STEP_DB
    assert low_db - mean_db == pytest.approx(10 * math.log10(-math.log1p(-LOW_SHARE)), abs=STEP_DB)


def test_the_power_clipped_is_that_of_the_pixels_and_below_the_limit():
    parts = {"water": exponential(0.003), "town": exponential(2.0)}
    parts["town"][::997] *= 12
    found = archive_window({name: levels(each) for name, each in parts.items()})
    power = np.concatenate([np.square(each.astype(np.float64)) for each in parts.values()])
    lost = np.maximum(power - 10 ** (found.top_db / 10), 0).sum() / power.sum()
    assert found.power_clipped == pytest.approx(lost, rel=0.15)
    assert lost < MOST_CLIPPED
    tighter = np.maximum(power - 10 ** ((found.top_db - 3 * STEP_DB) / 10), 0).sum() / power.sum()
    assert tighter > MOST_CLIPPED, "the window is wider than it need be"
    below = np.mean(10 * np.log10(power) < found.low_db)
    assert found.pixels_below == pytest.approx(below, abs=1e-3)
    assert below <= LOW_SHARE
    assert (found.scenes, found.outliers) == (2, {})


def test_the_gain_of_a_scene_shifts_its_levels():
    one, other = levels(exponential(1.0), gain=0.7), levels(exponential(0.49))
    assert scene_window(one) == pytest.approx(scene_window(other), abs=STEP_DB)


def test_an_outlier_scene_has_no_part_in_the_window_and_is_named(caplog):
    scenes = {f"s{number}": levels(exponential(0.05 * (number + 1))) for number in range(6)}
    without = archive_window(scenes)
    with caplog.at_level(logging.WARNING):
        wrong = archive_window({**scenes, "gain": levels(exponential(1e4))})
    assert (wrong.low_db, wrong.top_db) == (without.low_db, without.top_db)
    assert set(wrong.outliers) == {"gain"}
    assert wrong.outliers["gain"] > 0.99
    assert wrong.power_clipped == without.power_clipped
    assert "gain" in caplog.text
    assert "tile.db_window" in caplog.text
    reflector = np.append(exponential(0.05), np.float32(3e4))
    assert archive_window({**scenes, "reflector": levels(reflector)}).top_db == without.top_db
    dark = archive_window({**scenes, "dark": levels(exponential(1e-9))})
    assert (dark.low_db, set(dark.outliers)) == (without.low_db, {"dark"})


def test_scenes_of_another_kind_are_no_outliers():
    water = {f"w{number}": levels(exponential(0.001)) for number in range(8)}
    towns = {f"t{number}": levels(exponential(3.0)) for number in range(2)}
    found = archive_window({**water, **towns})
    assert found.outliers == {}
    assert found.power_clipped < MOST_CLIPPED
    # Of two or three scenes nobody can say which is wrong.
    assert (
        archive_window({"a": levels(exponential(0.1)), "b": levels(exponential(1e5))}).outliers
        == {}
    )


def test_an_archive_of_one_level_has_a_window_of_six_decibels():
    found = archive_window({"a": levels(np.full(100, 0.1, np.float32))})
    assert found.top_db - found.low_db == pytest.approx(6.0)
    assert found.low_db < -20 < found.top_db
    assert archive_window({}) is None


@pytest.mark.parametrize("amplitude", [1e-12, 1e9])
def test_levels_beyond_the_histogram_stay_within_it(amplitude):
    low, top = scene_window(levels(np.full(10, amplitude, np.float32)))
    assert low < top


def scene_pixels(number):
    pixels = np.abs(white_speckle((200, 200), number, power=0.02 * 3.0**number))
    pixels[50:53, 50:53] *= 20
    return pixels.astype(np.float32)


def archive(numbers=range(5), **changes):
    scenes = {f"s{n}": scene_pixels(n) for n in numbers}
    scenes |= changes
    return ArrayArchive({
        name: (lambda pixels=pixels: array_reader(pixels, 0.35)) for name, pixels in scenes.items()
    })  # fmt: skip


def planned(arrays, cfg=CFG, **options):
    return plan_scenes(arrays.search(), cfg, opener=arrays.open, **options)


def test_all_scenes_of_a_plan_share_the_window_and_no_other_constant():
    plan = planned(archive())
    laws = [shard["scene"]["normalisation"] for shard in plan.shards]
    assert {(law["low"], law["top"]) for law in laws} == {
        (amplitude_of_db(plan.window.low_db), amplitude_of_db(plan.window.top_db))
    }
    assert len({law["mu"] for law in laws}) == 5
    assert "levels" not in plan.shards[0]["scene"]
    assert plan.window.power_clipped < MOST_CLIPPED
    assert plan.window.scenes == 5


def test_the_plan_depends_on_neither_the_order_of_the_scenes_nor_the_workers():
    arrays = archive()
    listed = list(arrays.search())

    def backwards(function, items):
        return reversed([function(item) for item in reversed(list(items))])

    once = plan_scenes(listed, CFG, opener=arrays.open)
    assert plan_scenes(listed[::-1], CFG, opener=arrays.open, scatter=backwards) == once


def test_tiles_of_the_plan_lose_less_than_the_limit_and_carry_one_contract():
    arrays = archive()
    plan = planned(arrays)
    metas, power, lost = [], 0.0, 0.0
    for number, inputs in enumerate(plan.shards):
        for sample in tile_shard(number, inputs, arrays, CFG, opener=arrays.open).samples:
            meta = sample.meta
            amplitude = master_amplitude(decode_array(sample.members["sar16.npy"]), meta)
            whole = float(np.square(amplitude.astype(np.float64)).sum())
            power, lost = power + whole, lost + whole * meta["clipped_power"]
            metas.append(meta)
            picture = decode_gray8(sample.members["sar.png"])
            law = Normalisation.from_json(meta["normalisation"])
            inside = (picture > 0) & (picture < 255)
            error = 20 * np.abs(np.log10(law.decode(picture)[inside] / amplitude[inside]))
            step = (plan.window.top_db - plan.window.low_db) / 255
            assert error.max() <= step / 2 + 0.002
    assert 0 < lost / power < MOST_CLIPPED
    contract = contract_of_tiles(metas)
    assert contract.law is not None
    assert contract.is_calibrated
    assert contract.law.top == amplitude_of_db(plan.window.top_db)
    per_scene = planned(arrays, replace(CFG, db_scope="scene"))
    assert per_scene.window is None
    assert len({shard["scene"]["normalisation"]["top"] for shard in per_scene.shards}) == 5


def test_an_outlier_scene_of_a_plan_is_tiled_in_the_window_of_the_others():
    wrong = archive(hot=scene_pixels(0) * np.float32(1e4))
    plan = planned(wrong)
    assert set(plan.window.outliers) == {"hot"}
    assert plan.window.top_db == planned(archive()).window.top_db
    assert len({shard["scene"]["normalisation"]["top"] for shard in plan.shards}) == 1


def test_a_window_that_is_configured_is_taken_for_every_scope():
    plan = planned(archive(), replace(CFG, db_window=[-30.0, 10.0]))
    assert plan.window is None
    top = plan.shards[0]["scene"]["normalisation"]["top"]
    assert top == pytest.approx(amplitude_of_db(10.0))


def test_calm_water_has_a_signal_in_a_window_that_towns_widen():
    # In units of the amplitude of code 255, as per-scene laws are judged, it would have none.
    arrays = archive(range(1), water=scene_pixels(0) * np.float32(0.05), town=scene_pixels(9))
    plan = planned(arrays, replace(CFG, min_signal=0.002))
    [number] = [n for n, shard in enumerate(plan.shards) if shard["scene_id"] == "water"]
    made = tile_shard(number, plan.shards[number], arrays, CFG, opener=arrays.open)
    assert len(list(made.samples)) == 9
    assert not made.rejected


def test_memory_of_the_choice_grows_by_a_few_kilobytes_a_scene():
    tracemalloc.start()
    scenes = {f"s{number}": levels(exponential(0.1, 500)) for number in range(200)}
    held, _ = tracemalloc.get_traced_memory()
    archive_window(scenes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / 200 < 16_000
    assert peak - held < 4e6


def test_an_unknown_scope_is_refused_and_the_default_keeps_frozen_fingerprints():
    with pytest.raises(ConfigError, match="db_scope 'all'"):
        check_config(replace(CFG, db_scope="all"))
    with pytest.raises(ConfigError, match=r"and it is mu\+3sigma: set tile\.normalisation=db"):
        check_config(replace(CFG, normalisation="mu+3sigma"))
    assert "db_scope" not in decisive(TileConfig())
    assert fingerprint(TileConfig()) != fingerprint(TileConfig(db_scope="archive"))


def test_a_scene_that_is_all_zero_has_no_part(caplog):
    arrays = archive(zero=np.zeros((200, 200), np.float32))
    plan = planned(arrays)
    assert plan.window.scenes == 5
    assert set(plan.rejected) == {"zero"}
    assert Scene("zero", {}).id in plan.rejected
