"""Tiles in the slant plane: native geometry at a fixed spacing, said in metadata and contract."""

from __future__ import annotations

import math

import numpy as np
import pytest
from array_scenes import array_reader
from tiled_archives import SMALL, archive_of
from unit.archive.sicd_scenes import band_noise, write_sicd_scene

from hpc.errors import ConfigError
from sarhpc.archive.scene import Scene
from sarhpc.shards.tile_contract import contract_of_tiles
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.config_checks import check_config
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard


class OneScene:
    """An archive of one file."""

    def __init__(self, path):
        self.scene = Scene("s", {"sar": path}, {"sar:frequency_band": "X"})

    def search(self, **_):
        yield self.scene


def tiles_of(path, **settings):
    archive = OneScene(path)
    split = SplitConfig(fractions=[1.0, 0.0, 0.0])
    cfg = TileConfig(tile_px=64, split=split, write_complex=True, **settings)
    plan = plan_scenes(archive.search(), cfg)
    assert plan.rejected == {}
    return [s for n, x in enumerate(plan.shards) for s in tile_shard(n, x, archive, cfg).samples]


def test_slant_tiles_have_the_spacing_in_both_directions(tmp_path):
    path = write_sicd_scene(tmp_path / "a.nitf", band_noise((512, 384), 0.8), graze_deg=35.0)
    slant = tiles_of(path, plane="slant", pixel_m=0.5)
    ground = tiles_of(path, plane="ground", pixel_m=0.5)
    # 512 rows of 0.25 m in slant range are 128 m, and 156 m on the ground.
    assert len(slant) == (512 // 2 // 64) * (384 // 2 // 64)
    assert len(ground) == int(512 * 0.25 / math.cos(math.radians(35)) / 0.5 // 64) * 3
    meta = slant[0].meta
    assert (meta["plane"], meta["pixel_m"], meta["native_pixel_m"]) == ("slant", 0.5, [0.25, 0.25])
    assert meta["resolution"]["before"]["irw_m"] == pytest.approx([0.2769] * 2, abs=1e-3)
    assert "plane" not in ground[0].meta
    assert ground[0].meta["pixel_m"] == pytest.approx(0.5, rel=1e-3)


def test_the_plane_is_carried_in_the_contract(tmp_path):
    path = write_sicd_scene(tmp_path / "a.nitf", band_noise((256, 256), 0.8))
    kinds = {
        plane: contract_of_tiles([tile.meta for tile in tiles_of(path, plane=plane, pixel_m=0.5)])
        for plane in ("ground", "slant")
    }
    assert {plane: contract.plane for plane, contract in kinds.items()} == {
        "ground": "ground", "slant": "slant"
    }  # fmt: skip


def test_a_twisted_scene_is_not_rectified_in_its_own_plane(tmp_path):
    path = write_sicd_scene(tmp_path / "a.nitf", band_noise((256, 256), 0.8), twist_deg=12.0)
    [first, *_] = tiles_of(path, plane="slant", pixel_m=0.5)
    assert "rectified_axes_deg" not in first.meta
    [first, *_] = tiles_of(path, plane="ground", pixel_m=0.5)
    assert first.meta["rectified_axes_deg"] > 95


def test_a_scene_without_a_slant_plane_is_refused_with_the_reason():
    archive = archive_of(a=array_reader(np.ones((200, 200), np.complex64)))
    cfg = TileConfig(tile_px=64, plane="slant", split=SMALL.split)
    plan = plan_scenes(archive.search(), cfg, opener=archive.open)
    assert plan.rejected["a"].startswith("no_slant")
    with pytest.raises(ConfigError, match=r"tile\.plane 'sky'.*ground, slant"):
        check_config(TileConfig(plane="sky"))


def test_scenes_of_different_resolution_are_told(tmp_path, caplog):
    scenes = []
    for name, band in (("fine", 0.8), ("coarse", 0.5)):
        field = band_noise((256, 256), band)
        path = write_sicd_scene(tmp_path / f"{name}.nitf", field, band=band)
        scenes.append(Scene(name, {"sar": path}))
    cfg = TileConfig(tile_px=64, pixel_m=None, split=SMALL.split)
    with caplog.at_level("WARNING"):
        plan = plan_scenes(scenes, cfg)
    assert plan.resolutions["coarse"][0] == pytest.approx(0.443, abs=1e-3)
    assert "tiles of one spacing mix resolutions: 0.277 m in azimuth for scene fine" in caplog.text
