"""Tiles of a real scene that control points place: their own affines, outlines and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_scenes import ArrayArchive
from rasterio.transform import GCPTransformer

from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.scene import Scene
from sarhpc.shards.schema import validate_sample
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.grid import scene_frame
from sarhpc.tiling.orientation import transform
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.splits.footprint import to_wgs84
from sarhpc.tiling.tile import tile_shard

GRD = "sentinel1/cog_gcps.tif"
TRAIN = SplitConfig(fractions=[1.0, 0.0, 0.0])


def tiles_of(path: Path, **settings):
    """Samples of the scene at `path` at its own spacing, with its range direction turned."""
    direction = settings.pop("direction", "+col")
    scene = Scene("s", {"sar": path}, {"sarhpc:range_direction": direction})
    cfg = TileConfig(
        tile_px=128, pixel_m=None, allow_uncalibrated=True, split=TRAIN, max_tiles=12, **settings
    )
    archive = ArrayArchive({"s": lambda: open_sar(scene)}, {"s": scene})
    plan = plan_scenes(archive.search(), cfg)
    assert plan.rejected == {}
    tiled = tile_shard(0, plan.shards[0], archive, cfg)
    return list(tiled.samples)


@pytest.mark.parametrize("direction", ["+col", "-row"])
def test_every_tile_lies_where_gdals_own_spline_puts_it(test_data, direction):
    """GDAL fits its spline in degrees, this project in metres: they agree to a tenth of a pixel."""
    import rasterio

    with rasterio.open(test_data / GRD) as dataset:
        gcps, _ = dataset.gcps
    samples = tiles_of(test_data / GRD, direction=direction)
    assert len(samples) > 5
    with GCPTransformer(gcps, tps=True) as spline:
        for sample in samples:
            meta = sample.meta
            validate_sample(sample)
            row, col, rows, cols = meta["window"]
            inside = np.array([(10.0, 10.0), (64.0, 64.0), (120.0, 20.0)])
            x, y = transform(tuple(meta["affine"]), inside).T
            lon, lat = to_wgs84(meta["crs"]).transform(x, y)
            native = {
                "+col": inside + np.array([col, row]),
                "-row": np.stack([col + inside[:, 1], row + rows - inside[:, 0]], axis=1),
            }[direction]
            assert (rows, cols) == (128, 128)
            true_lon, true_lat = spline.xy(native[:, 1], native[:, 0], offset="ul")
            east = (lon - np.array(true_lon)) * 111_320 * np.cos(np.radians(10))
            north = (lat - np.array(true_lat)) * 110_600
            assert np.hypot(east, north).max() < meta["geolocation"]["affine_error_m"] + 20


def test_each_tile_says_how_well_it_is_placed(test_data):
    for sample in tiles_of(test_data / GRD):
        placed = sample.meta["geolocation"]
        assert placed["model"] == "tps"
        assert placed["held_out_m"] < 8 < placed["affine_held_out_m"]
        assert 0 < placed["affine_error_m"] < placed["affine_held_out_m"]


def test_outlines_of_neighbours_share_their_edge_though_their_affines_differ(test_data):
    samples = {tuple(s.meta["window"][:2]): s.meta for s in tiles_of(test_data / GRD)}
    here, right = samples[0, 0], samples[0, 128]
    east_edge = np.array(here["footprint"])[4:9]
    west_edge = np.array(right["footprint"])[12:17][::-1]
    assert here["affine"][:2] != right["affine"][:2]
    assert east_edge == pytest.approx(west_edge, abs=1e-7)


def test_a_scene_with_an_affine_is_placed_as_before(test_data):
    scene = Scene(
        "s",
        {"sar": test_data / "spacenet6_solaris/sar_hh.tif"},
        {"sarhpc:range_direction": "+row"},
    )
    frame = scene_frame(open_sar(scene).header, None)
    assert frame.window_affine((64, 128), (32, 96)) == frame.affine_at(64, 32)
    assert frame.affine_error_m((64, 128), (32, 96)) < 1e-6
