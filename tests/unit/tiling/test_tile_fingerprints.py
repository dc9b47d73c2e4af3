"""Copies of tiles: the same pixels, and the same ground under other speckle."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from array_scenes import ArrayArchive, array_reader
from scipy import ndimage

from sarhpc.shards.schema import validate_sample
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.duplicates import find_duplicates, fingerprints
from sarhpc.tiling.fingerprints import (
    content_digest,
    ground_hash,
)
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

GOTCHA = "gotcha_xband/derived_gotcha_az1-4_HH_slc_ground_0p2m.tif"


def ground(seed, size=512, coarse=12):
    """Reflectivity (size, size) of made-up fields and woods, 3.5 dB deviation."""
    noise = np.random.default_rng(seed).standard_normal((size, size))
    smooth = ndimage.gaussian_filter(noise, coarse)
    return np.exp(0.8 * smooth / smooth.std())


def seen(reflectivity, seed):
    """One flight over it: amplitude with single-look speckle of its own."""
    speckle = np.random.default_rng(seed).exponential(1, reflectivity.shape)
    return np.sqrt(reflectivity * speckle).astype(np.float32)


def differing_bits(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


def hash_of(amplitude, valid=None):
    return ground_hash(amplitude, np.ones(amplitude.shape, bool) if valid is None else valid)


@pytest.mark.slow
def test_new_speckle_on_the_same_ground_is_near_and_other_ground_is_far():
    same, hashes = [], []
    for seed in range(20):
        first, second = (hash_of(seen(ground(seed), 100 * seed + k)) for k in (0, 1))
        same.append(differing_bits(first, second))
        hashes.append(first)
    other = [differing_bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert max(same) <= 6
    assert min(other) >= 14
    assert np.mean(other) == pytest.approx(32, abs=2)


def test_the_real_parking_lot_imaged_again_is_recognised_and_its_neighbour_is_not(test_data):
    with rasterio.open(test_data / GOTCHA) as dataset:
        power = np.abs(dataset.read(1)) ** 2
    reflectivity = ndimage.gaussian_filter(power, 2.0)
    first, again = (hash_of(seen(reflectivity[:512, :512], k)) for k in (1, 2))
    shifted = hash_of(seen(reflectivity[5:517, 5:517], 3))
    neighbour = hash_of(seen(reflectivity[128:640, 128:640], 4))
    assert differing_bits(first, again) <= 3
    assert differing_bits(first, shifted) <= 10
    assert differing_bits(first, neighbour) >= 14


def test_gain_and_gaps_do_not_enter_the_hash_and_calm_water_has_none():
    amplitude = seen(ground(1), 1)
    gaps = np.ones(amplitude.shape, bool)
    gaps[:, :16] = False
    holed = np.where(gaps, amplitude, 0).astype(np.float32)
    assert hash_of(amplitude * np.float32(7)) == hash_of(amplitude)
    assert differing_bits(hash_of(amplitude), hash_of(holed, gaps)) <= 10
    assert hash_of(seen(np.ones((512, 512)), 2)) is None
    assert hash_of(np.zeros((512, 512), np.float32)) is None
    assert hash_of(amplitude[:16, :16]) is None


def test_one_changed_pixel_changes_the_digest_and_not_the_hash():
    amplitude = seen(ground(1), 1)
    changed = amplitude.copy()
    changed[7, 9] *= 1.0001
    valid = np.ones(amplitude.shape, bool)
    partly = valid.copy()
    partly[0, 0] = False
    assert content_digest(amplitude, valid) == content_digest(amplitude.copy(), valid)
    assert content_digest(changed, valid) != content_digest(amplitude, valid)
    assert content_digest(amplitude, partly) != content_digest(amplitude, valid)
    assert hash_of(changed) == hash_of(amplitude)


@pytest.mark.parametrize("switch", ["fingerprints", "dedupe"])
def test_copies_among_tiles_of_shards_are_found_and_the_first_kept(switch):
    """Scene a, its exact copy b, a repeated acquisition c, and d elsewhere."""
    land = ground(3, 1024)
    flights = {"a": seen(land, 1), "b": seen(land, 1), "c": seen(land, 2), "d": seen(ground(9), 3)}
    archive = ArrayArchive(
        {name: (lambda p=pixels: array_reader(p, 0.35)) for name, pixels in flights.items()}
    )
    cfg = TileConfig(**{switch: True}, split=SplitConfig(fractions=[1.0, 0.0, 0.0]))
    plan = plan_scenes(archive.search(), cfg, opener=archive.open)
    metas = []
    for number, shard in enumerate(plan.shards):
        for sample in tile_shard(number, shard, archive, cfg, opener=archive.open).samples:
            validate_sample(sample)
            metas.append(sample.meta)
    found = find_duplicates(fingerprints(reversed(metas)))
    scene = {meta["key"]: meta["scene_id"] for meta in metas}
    assert len(metas) == 13
    assert [(scene[d.key], scene[d.of], d.why) for d in found] == [
        ("b", "a", "copy")] * 4 + [("c", "a", "ground")] * 4  # fmt: skip
    assert all(d.bits <= 6 for d in found if d.why == "ground")


def test_tiles_carry_no_fingerprints_unless_asked():
    archive = ArrayArchive({"a": lambda: array_reader(seen(ground(3), 1), 0.35)})
    cfg = TileConfig(split=SplitConfig(fractions=[1.0, 0.0, 0.0]))
    (shard,) = plan_scenes(archive.search(), cfg, opener=archive.open).shards
    (sample,) = tile_shard(0, shard, archive, cfg, opener=archive.open).samples
    assert not {"content_digest", "ground_hash"} & sample.meta.keys()
