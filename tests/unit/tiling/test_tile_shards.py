"""From scenes to samples: the plan, the shard and its bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from array_scenes import ArrayArchive, array_reader, white_speckle
from split_oracles import overlaps_across_splits
from tiled_archives import FIELD, SMALL, TRAIN, archive_of, tiles_of

from hpc.errors import ConfigError
from sarhpc.archive.scene import Scene
from sarhpc.shards.images import decode_array, decode_gray8
from sarhpc.shards.radiometry import (
    Normalisation,
    decode_master,
    master_amplitude,
)
from sarhpc.shards.schema import validate_sample
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard


def digest(samples):
    total = hashlib.sha256()
    for sample in samples:
        for name in sorted(sample.members):
            total.update(f"{sample.key}.{name}".encode() + sample.members[name])
    return total.hexdigest()


def test_a_scene_becomes_samples_of_the_frozen_schema():
    archive = archive_of(one=array_reader(FIELD))
    samples, rejected = tiles_of(archive, SMALL)
    assert len(samples) == 6 * 7
    assert rejected == {}
    for index, sample in enumerate(samples):
        validate_sample(sample)
        assert sample.key == f"000000{index:05d}"
        assert set(sample.members) == {"sar.png", "sar16.npy", "meta.json"}


def test_tiles_name_the_flight_line_of_their_scene_where_it_is_known():
    archive = archive_of(one=array_reader(FIELD))
    [scene] = archive.search()
    flown = replace(scene, properties={**scene.properties, "sarhpc:flight_line": 7})
    archive.scenes["one"] = flown
    assert {s.meta["flight_line"] for s in tiles_of(archive, SMALL)[0]} == {"7"}
    assert "flight_line" not in tiles_of(archive_of(one=array_reader(FIELD)), SMALL)[0][0].meta


def test_picture_and_master_hold_the_same_amplitude():
    samples, _ = tiles_of(archive_of(one=array_reader(FIELD)), SMALL)
    for sample in samples[:5]:
        meta = sample.meta
        top = meta["normalisation"]["top"]
        picture = decode_gray8(sample.members["sar.png"])
        master = decode_master(decode_array(sample.members["sar16.npy"]), meta["master_scale"])
        back = picture * np.float32(top / 255)
        assert np.abs(back - np.minimum(master, top)).max() <= top / 510 + meta["master_scale"]


def test_tiles_are_the_whole_scene_cut():
    reader = array_reader(FIELD)
    apart, _ = tiles_of(archive_of(one=reader), SMALL)
    together, _ = tiles_of(archive_of(one=reader), replace(SMALL, block_tiles=16))
    for one, other in zip(
        sorted(apart, key=lambda s: s.meta["window"]),
        sorted(together, key=lambda s: s.meta["window"]),
        strict=True,
    ):
        a, b = (
            decode_master(decode_array(s.members["sar16.npy"]), s.meta["master_scale"])
            for s in (one, other)
        )
        assert np.abs(a - b).max() < 10 ** (-60 / 20) * b.max() + 2 * one.meta["master_scale"]


def test_complex_tiles_are_written_when_asked_and_match_the_master():
    cfg = replace(SMALL, write_complex=True)
    [first, *_], _ = tiles_of(archive_of(one=array_reader(FIELD)), cfg)
    field = decode_array(first.members["sar.npy"])
    master = decode_master(decode_array(first.members["sar16.npy"]), first.meta["master_scale"])
    assert field.dtype == np.complex64
    np.testing.assert_allclose(np.abs(field), master, atol=first.meta["master_scale"])


def test_a_tile_does_not_depend_on_its_neighbours_or_its_shard():
    archive = archive_of(one=array_reader(FIELD))
    plan = plan_scenes(archive.search(), SMALL, opener=archive.open)
    [inputs] = plan.shards
    everything = {s.meta["window"][0]: s for s in tiles_of(archive, SMALL)[0]}
    alone = {**inputs, "tiles": [inputs["tiles"][9]]}
    [sample] = tile_shard(7, alone, archive, SMALL, opener=archive.open).samples
    assert sample.key == "00000700000"
    [same] = [s for s in tiles_of(archive, SMALL)[0] if s.meta["window"] == sample.meta["window"]]
    assert same.members["sar.png"] == sample.members["sar.png"]
    assert same.members["sar16.npy"] == sample.members["sar16.npy"]
    assert {**same.meta, "key": ""} == {**sample.meta, "key": ""}
    assert everything


def test_the_same_plan_gives_the_same_bytes_and_so_does_planning_again():
    first = archive_of(b=array_reader(FIELD), a=array_reader(white_speckle((300, 300))))
    again = archive_of(a=array_reader(white_speckle((300, 300))), b=array_reader(FIELD))
    plans = [
        plan_scenes(archive.search(), SMALL, opener=archive.open) for archive in (first, again)
    ]
    assert plans[0] == plans[1]
    assert json.loads(json.dumps(plans[0].shards)) == plans[0].shards
    assert digest(tiles_of(first, SMALL)[0]) == digest(tiles_of(again, SMALL)[0])


def test_each_block_of_the_scene_is_read_once():
    reader = array_reader(FIELD)
    archive = archive_of(one=reader)
    plan = plan_scenes(archive.search(), SMALL, opener=archive.open)
    reader.reads.clear()
    samples, _ = tiles_of(archive, SMALL, plan)
    assert len(samples) == 42
    assert len(reader.reads) == 12  # blocks of 2 x 2 tiles over a grid of 6 x 7
    assert reader.closed == 2


def test_shards_hold_one_scene_and_one_split_and_at_most_their_size():
    cfg = TileConfig(
        tile_px=64,
        shard_samples=10,
        split=SplitConfig(fractions=[0.5, 0.25, 0.25], cell_m=60.0, buffer_m=1.0, seed=2),
    )
    far = (0.2, 0, 710_000.0, 0, -0.2, 6_250_000.0)
    archive = archive_of(b=array_reader(FIELD), a=array_reader(FIELD, affine=far))
    plan = plan_scenes(archive.search(), cfg, opener=archive.open)
    assert [shard["scene_id"] for shard in plan.shards] == sorted(
        shard["scene_id"] for shard in plan.shards
    )
    assert max(len(shard["tiles"]) for shard in plan.shards) == 10
    assert len({shard["split"] for shard in plan.shards}) > 1
    samples, rejected = tiles_of(archive, cfg, plan)
    metas = [sample.meta for sample in samples]
    assert rejected == {}
    assert len({meta["key"] for meta in metas}) == len(metas) == plan.counts["tiles"]
    assert plan.counts["tiles_dropped_split_buffer"] == 84 - len(metas) > 0
    assert overlaps_across_splits(metas) == []


def test_max_tiles_ends_the_plan():
    archive = archive_of(one=array_reader(FIELD))
    plan = plan_scenes(
        archive.search(), replace(SMALL, max_tiles=13, shard_samples=5), opener=archive.open
    )
    assert [len(shard["tiles"]) for shard in plan.shards] == [5, 5, 3]
    assert plan.counts["tiles_dropped_max_tiles"] == 42 - 13


def test_scene_metadata_reaches_the_tile():
    archive = archive_of(one=array_reader(FIELD, look_side="right", incidence_deg=44.0))
    properties = {
        "datetime": "2024-05-01T10:00:00Z",
        "sar:frequency_band": "X",
        "sar:polarizations": ["HH"],
        "platform": "falcon-20",
        "license": "CC-BY-4.0",
    }
    archive.scenes = {"one": Scene("one", {}, properties)}
    [sample, *_], _ = tiles_of(archive, SMALL)
    wanted = {
        "scene_id": "one",
        "datetime": "2024-05-01T10:00:00Z",
        "band": "X",
        "polarization": "HH",
        "platform": "falcon-20",
        "licence": "CC-BY-4.0",
        "incidence_deg": 44.0,
        "look_side": "right",
        "range_direction": "+col",
        "enl": 1.0,
        "resampling": "fft",
        "pixel_m": 0.35,
        "native_pixel_m": [0.2, 0.2],
        "window": [0, 0, 112, 112],
        "synthetic": False,
    }
    assert {name: sample.meta[name] for name in wanted} == wanted


def test_the_plan_is_the_same_from_a_parallel_map():
    archive = archive_of(a=array_reader(FIELD), b=array_reader(white_speckle((300, 300))))

    def backwards(work, scenes):
        return [work(scene) for scene in reversed(list(scenes))]

    plain = plan_scenes(archive.search(), SMALL, opener=archive.open)
    assert plan_scenes(archive.search(), SMALL, opener=archive.open, scatter=backwards) == plain


@pytest.mark.parametrize(
    "change",
    [
        {"normalisation": "max"},
        {"tile_px": 0},
        {"stride_px": 0},
        {"pixel_m": -0.35},
        {"transition": 0.0},
        {"shard_samples": 0},
        {"split": SplitConfig(fractions=[1.0])},
    ],
)
def test_a_configuration_that_cannot_be_carried_out_is_refused(change):
    archive = archive_of(one=array_reader(FIELD))
    with pytest.raises(ConfigError, match=next(iter(change))):
        plan_scenes(archive.search(), replace(SMALL, **change), opener=archive.open)


def test_a_scene_of_30_000_pixels_a_side_is_read_in_pieces():
    pattern = np.tile(white_speckle((1, 30_000)), (2, 1))
    pixels = np.lib.stride_tricks.as_strided(pattern, (30_000, 30_000), (0, 8))
    valid = np.broadcast_to(True, pixels.shape)
    reader = array_reader(pixels, valid=valid)
    archive = archive_of(one=reader)
    cfg = TileConfig(split=TRAIN, survey_mpx=1.0)
    plan = plan_scenes(archive.search(), cfg, opener=archive.open)
    assert plan.counts["tiles"] == 33 * 33
    [first, *_] = plan.shards
    assert len(first["tiles"]) == 256
    inputs = {**first, "tiles": first["tiles"][:4]}
    assert len(list(tile_shard(0, inputs, archive, cfg, opener=archive.open).samples)) == 4
    sizes = [(rows[1] - rows[0]) * (cols[1] - cols[0]) for rows, cols in reader.reads]
    assert max(sizes) * 8 < 40e6


def test_a_logarithmic_corpus_gives_back_sigma0_of_every_pixel():
    """Master in logarithm, picture in dB: sigma0 of a scene of 100 dB range within 0.01 dB."""
    pixels = np.abs(white_speckle((96, 96))) * np.logspace(-3, 2, 96, dtype=np.float32)
    archive = ArrayArchive({"s": lambda: array_reader(pixels, 0.35)})
    cfg = TileConfig(
        tile_px=64,
        normalisation="db",
        db_window=[-60.0, 40.0],
        master="log",
        max_saturated=1.0,
        split=SplitConfig(fractions=[1.0, 0.0, 0.0]),
    )
    plan = plan_scenes(archive.search(), cfg, opener=archive.open)
    (sample,) = tile_shard(0, plan.shards[0], archive, cfg, opener=archive.open).samples
    validate_sample(sample)
    meta, expected = sample.meta, pixels[:64, :64]
    back = master_amplitude(decode_array(sample.members["sar16.npy"]), meta)
    error = 20 * np.log10(back.astype(float) / expected)
    assert np.abs(error).max() < 0.01
    picture = decode_gray8(sample.members["sar.png"])
    step = 100 / 255
    level = 20 * np.log10(expected.astype(float))
    seen = 20 * np.log10(Normalisation.from_json(meta["normalisation"]).decode(picture))
    inside = (level > -60) & (level < 40)
    assert np.abs(seen - level)[inside].max() < step / 2 * 1.01
    assert meta["normalisation"]["low"] == pytest.approx(1e-3)
