"""Scenes on grids, with values and in folders that other programs write."""

from __future__ import annotations

import logging
import os
import shutil

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Geod

from hpc.errors import DataError
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.map_scale import true_spacing
from sarhpc.archive.stac_catalog import open_archive
from sarhpc.shards.images import decode_array
from sarhpc.shards.radiometry import master_amplitude
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard


def tiles_of(folder, out, **settings):
    """Every tile of a catalogued folder, in one split, and the header of its first scene."""
    catalog_directory(folder, out)
    archive = open_archive(str(out))
    scenes = list(archive.search())
    cfg = TileConfig(**{"tile_px": 64, "allow_uncalibrated": True, **settings})
    cfg.split.fractions = [1.0, 0.0, 0.0]
    plan = plan_scenes(scenes, cfg)
    assert plan.rejected == {}
    tiles = [
        s for n, shard in enumerate(plan.shards) for s in tile_shard(n, shard, archive, cfg).samples
    ]
    return tiles, open_sar(scenes[0]).header


def side_m(tile):
    """Length of the first side of a tile's footprint on the ellipsoid."""
    outline = tile.meta["footprint"]
    (lon0, lat0), (lon1, lat1) = outline[0], outline[len(outline) // 4]
    return Geod(ellps="WGS84").inv(lon0, lat0, lon1, lat1)[2]


def test_a_web_mercator_scene_has_the_pixels_it_has_on_the_ground(test_cases, tmp_path):
    tiles, header = tiles_of(test_cases / "mercator", tmp_path, pixel_m=None)
    assert header.spacing_m == pytest.approx((0.525, 0.525), rel=2e-3)
    assert tiles[0].meta["pixel_m"] == pytest.approx(0.525, rel=2e-3)
    assert side_m(tiles[0]) == pytest.approx(64 * 0.525, rel=3e-3)
    resampled, _ = tiles_of(test_cases / "mercator", tmp_path, pixel_m=1.05)
    assert resampled[0].meta["resampling"] == "multilook"
    assert side_m(resampled[0]) == pytest.approx(64 * 1.05, rel=3e-3)


def test_a_grid_made_for_surveying_keeps_its_nominal_spacing():
    affine = (1.0, 0.0, 500_000.0, 0.0, -1.0, 5_000_000.0)
    assert true_spacing(affine, (1000, 1000), "EPSG:32631", "a.tif") == (1.0, 1.0)


def test_a_scene_over_which_the_projection_stretches_too_differently_is_refused():
    affine = (1000.0, 0.0, 1.7e6, 0.0, -1000.0, 9.0e6)
    with pytest.raises(DataError, match=r"in EPSG:3857 its pixels measure from .* to .* m .*UTM"):
        true_spacing(affine, (1000, 1000), "EPSG:3857", "a.tif")


def test_a_grid_in_degrees_is_read_in_local_metres(test_cases, tmp_path):
    tiles, header = tiles_of(test_cases / "degree_grid", tmp_path, pixel_m=None)
    with rasterio.open(test_cases / "degree_grid" / "radar.tif") as file:
        step, west, north = file.transform.a, file.transform.c, file.transform.f
    geod = Geod(ellps="WGS84")
    middle = north - 64 * step
    across = geod.inv(west, middle, west + step, middle)[2]
    down = geod.inv(west, middle, west, middle - step)[2]
    # The grid of the UTM zone stretches by less than 0.1 %.
    assert header.spacing_m == pytest.approx((down, across), rel=2e-3)
    assert header.crs == "EPSG:32617"
    lon, lat = np.array(tiles[0].meta["footprint"]).T
    assert (lon.min(), lat.max()) == pytest.approx((west, north), abs=1e-6)
    assert tiles[0].meta["geolocation"]["affine_error_m"] < 0.1


def test_negative_amplitude_is_zero_and_counted(test_cases, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        tiles, _ = tiles_of(test_cases / "neg_amplitude", tmp_path, pixel_m=1.0)
    with rasterio.open(test_cases / "neg_amplitude" / "neg.tif") as file:
        stored = file.read(1)
    assert tiles[0].meta["negative_fraction"] == pytest.approx((stored < 0).mean(), abs=1e-3)
    assert "16.3 % of its pixels are negative" in caplog.text
    first = np.maximum(stored[:64, :64], 0)
    made = master_amplitude(decode_array(tiles[0].members["sar16.npy"]), tiles[0].meta)
    assert np.abs(made - first).max() <= first.max() / 65535


def test_a_scene_without_negative_values_says_nothing_of_them(test_cases, tmp_path):
    tiles, _ = tiles_of(test_cases / "mercator", tmp_path, pixel_m=None)
    assert "negative_fraction" not in tiles[0].meta


def test_a_linked_folder_of_scenes_is_followed(test_cases, tmp_path):
    folder = tmp_path / "archive"
    shutil.copytree(test_cases / "linked", folder, ignore=shutil.ignore_patterns("pass2"))
    os.symlink(test_cases / "linked_target", folder / "pass2")
    os.symlink(folder, folder / "loop")
    report = catalog_directory(folder, tmp_path / "out")
    assert report.scenes == ("a", "b")
    assert report.skipped == ()
    assert {scene.id for scene in open_archive(str(tmp_path / "out")).search()} == {"a", "b"}


def test_a_link_to_nothing_is_left_out_with_the_reason(tmp_path, test_cases):
    folder = tmp_path / "archive"
    shutil.copytree(test_cases / "mercator", folder)
    os.symlink(tmp_path / "gone.tif", folder / "gone.tif")
    report = catalog_directory(folder, tmp_path / "out")
    assert [item.path.name for item in report.skipped] == ["gone.tif"]
    assert "there is no such file" in report.skipped[0].reason


def test_degrees_of_any_axis_lengths_are_placed(tmp_path):
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "height": 90, "width": 80, "count": 1, "dtype": "float32",
               "crs": "EPSG:4326", "transform": Affine(2e-5, 0, 7.5, 0, -1e-5, 60.0)}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.random.default_rng(0).rayleigh(1, (1, 90, 80)).astype(np.float32))
    (tmp_path / "sarhpc.yaml").write_text(
        'defaults: {role: sar, band: X, range_direction: "+col", calibrated: true}\n'
    )
    tiles, header = tiles_of(tmp_path, tmp_path / "out", pixel_m=None)
    assert header.spacing_m == pytest.approx((1.114, 1.116), rel=2e-3)
    assert tiles
