"""Conditioning layers: edges that speckle does not make, land cover in colours, coarse radar."""

from __future__ import annotations

import numpy as np
import pytest
from array_scenes import ArrayArchive, array_reader, band_speckle, white_speckle
from scipy import ndimage

from hpc.errors import ConfigError
from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.flight import scene_ids
from sarhpc.archive.procedural.write import write_scene
from sarhpc.archive.stac_catalog import StacArchive, write_catalogue
from sarhpc.shards.images import decode_array, decode_gray8, decode_rgb8
from sarhpc.shards.radiometry import Normalisation
from sarhpc.shards.schema import validate_sample
from sarhpc.tiling.config import CrossBandConfig, SplitConfig, TileConfig
from sarhpc.tiling.pairs.conditions import (
    CONDITIONS,
    EDGE_REACH,
    PALETTE,
    coarse_amplitude,
    colours_of,
    draw_edges,
    edge_ratios_db,
    edge_threshold_db,
)
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

TRAIN = SplitConfig(fractions=[1.0, 0.0, 0.0])


def everywhere(image):
    return np.ones(image.shape, bool)


def sketch(amplitude, looks=1.0):
    return draw_edges(edge_ratios_db(amplitude, everywhere(amplitude)), edge_threshold_db(looks))


@pytest.mark.parametrize("level", [0.001, 1.0, 1000.0])
def test_speckle_alone_draws_no_edges_however_bright(level):
    """A constant rate of false alarms: the ratio does not know how bright the ground is."""
    amplitude = np.abs(white_speckle((512, 512), 3)) * np.float32(level)
    assert np.mean(sketch(amplitude) > 0) < 1e-3
    correlated = np.abs(band_speckle((512, 512), 0.7, seed=4)) * np.float32(level)
    assert np.mean(sketch(correlated) > 0) < 5e-3


@pytest.mark.parametrize("axis", [0, 1])
def test_a_boundary_of_six_db_is_drawn_where_it_lies(axis):
    power = np.ones((256, 256), np.float32)
    power[128:] = 4
    power = power if axis == 0 else power.T
    amplitude = np.abs(white_speckle((256, 256), 1)) * np.sqrt(power)
    drawn = sketch(amplitude) if axis == 0 else sketch(amplitude).T
    line = drawn[:, EDGE_REACH:-EDGE_REACH] > 0
    assert line[122:134].any(axis=0).mean() > 0.99
    assert line.sum(axis=0).mean() < 6
    assert abs(np.nonzero(line)[0].mean() - 127.5) < 1
    profile = edge_ratios_db(amplitude, everywhere(amplitude))[axis].mean(axis=1 - axis)
    assert profile.max() == pytest.approx(6, abs=1)


def test_the_rim_of_a_gap_is_no_edge():
    amplitude = np.abs(white_speckle((200, 200)))
    valid = everywhere(amplitude)
    valid[:, :40] = False
    amplitude[~valid] = 0
    ratios = edge_ratios_db(amplitude, valid)
    assert (ratios[:, :, :54] == 0).all()
    assert (draw_edges(ratios, edge_threshold_db(1.0)) > 0).mean() < 1e-3


def test_a_coarse_image_keeps_mean_intensity_and_adds_looks():
    amplitude = np.abs(white_speckle((512, 512)))
    coarse = coarse_amplitude(amplitude, everywhere(amplitude), 4)
    power = coarse[::4, ::4].astype(float) ** 2
    assert coarse.shape == amplitude.shape
    assert power.mean() == pytest.approx(np.mean(amplitude.astype(float) ** 2), rel=1e-4)
    assert power.mean() ** 2 / power.var() == pytest.approx(16, rel=0.05)
    assert np.array_equal(coarse[0:4, 4:8], np.full((4, 4), coarse[0, 4]))


def test_a_coarse_image_leaves_gaps_out_and_need_not_divide_the_tile():
    amplitude = np.full((10, 11), 2, np.float32)
    valid = everywhere(amplitude)
    valid[0, :3] = False
    amplitude[~valid] = 0
    coarse = coarse_amplitude(amplitude, valid, 4)
    assert coarse.shape == (10, 11)
    assert np.array_equal(coarse, np.full((10, 11), 2, np.float32))


def test_classes_have_colours_of_their_own():
    label = np.arange(9, dtype=np.uint8).reshape(3, 3)
    assert len({tuple(colour) for colour in colours_of(label).reshape(-1, 3)}) == 9
    assert np.array_equal(colours_of(np.full((2, 2), 200, np.uint8)), np.zeros((2, 2, 3)))


@pytest.fixture(scope="module")
def procedural(tmp_path_factory):
    root = tmp_path_factory.mktemp("archive")
    # The second line sees the ground of the first on another day.
    cfg = ProceduralConfig(scenes=4, size_px=448, scenes_per_line=2, reflown_fraction=1.0)
    write_catalogue([write_scene(cfg, name, root) for name in scene_ids(cfg)], root)
    return StacArchive(root)


def test_a_procedural_tile_carries_every_condition_in_its_own_pixels(procedural):
    cfg = TileConfig(
        tile_px=128,
        split=TRAIN,
        conditions=list(CONDITIONS),
        coarse_factor=2,
        other=CrossBandConfig(band="X"),
    )
    plan = plan_scenes(procedural.search(), cfg)
    samples = list(tile_shard(0, plan.shards[0], procedural, cfg).samples)
    assert samples
    for sample in samples:
        validate_sample(sample)
        meta = sample.meta
        assert set(meta["conditions"]) == set(CONDITIONS)
        label = decode_array(sample.members["landcover.npy"])[0]
        colours = decode_rgb8(sample.members["segmentation.png"])
        assert np.array_equal(colours, PALETTE[label])
        coarse = decode_gray8(sample.members["coarse.png"])
        assert np.array_equal(coarse[::2, ::2], coarse[1::2, 1::2])
        top = Normalisation.from_json(meta["normalisation"]).top
        fine = decode_array(sample.members["sar16.npy"]) * meta["master_scale"]
        box = np.sqrt(np.mean(fine[:2, :2].astype(float) ** 2))
        assert coarse[0, 0] == pytest.approx(min(255 * box / top, 255), abs=0.6)
    drawn = [decode_gray8(sample.members["edges.png"]) for sample in samples]
    assert 0.005 < np.mean(np.array(drawn) > 0) < 0.3


def test_the_shore_of_a_lake_is_drawn_and_the_lake_is_not(procedural):
    """Of the true map: borders between water and land, and water away from them."""
    cfg = TileConfig(tile_px=256, split=TRAIN, conditions=["edges", "segmentation"])
    seen = 0
    for number, shard in enumerate(plan_scenes(procedural.search(), cfg).shards):
        for sample in tile_shard(number, shard, procedural, cfg).samples:
            water = decode_array(sample.members["landcover.npy"])[0] == 1
            if not 0.2 < water.mean() < 0.8:
                continue
            seen += 1
            land = ndimage.binary_dilation(~water, iterations=1)
            shore = ndimage.binary_dilation(land & water, iterations=4)
            lake = ndimage.binary_erosion(water, iterations=12)
            drawn = decode_gray8(sample.members["edges.png"]) > 0
            reached = ndimage.binary_dilation(drawn, iterations=4)
            assert reached[land & water].mean() > 0.6
            assert drawn[lake].mean() < 0.02
            assert drawn[shore].mean() > 10 * drawn[lake].mean()
    assert seen > 0


def one_scene():
    return ArrayArchive({"a": lambda: array_reader(np.abs(white_speckle((300, 300))), 0.35)})


def test_a_tile_without_what_a_condition_needs_is_rejected_by_name():
    archive = one_scene()
    for condition in ("segmentation", "optical"):
        cfg = TileConfig(tile_px=128, split=TRAIN, conditions=[condition])
        plan = plan_scenes(archive.search(), cfg, opener=archive.open)
        tiled = tile_shard(0, plan.shards[0], archive, cfg, opener=archive.open)
        assert list(tiled.samples) == []
        assert dict(tiled.rejected) == {"condition_missing": 4}


def test_no_condition_is_made_unless_asked_and_none_that_is_unknown():
    archive = one_scene()
    cfg = TileConfig(tile_px=128, split=TRAIN)
    plan = plan_scenes(archive.search(), cfg, opener=archive.open)
    samples = list(tile_shard(0, plan.shards[0], archive, cfg, opener=archive.open).samples)
    assert {name for sample in samples for name in sample.members} == {
        "sar.png",
        "sar16.npy",
        "meta.json",
    }
    assert not any("conditions" in sample.meta for sample in samples)
    with pytest.raises(ConfigError, match="sketch"):
        plan_scenes(archive.search(), TileConfig(conditions=["sketch"]), opener=archive.open)
