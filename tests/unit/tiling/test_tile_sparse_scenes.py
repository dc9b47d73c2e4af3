"""Scenes that are mostly nothing: undeclared zero edges, and a huge one with data in a corner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from array_scenes import array_reader, white_speckle
from scipy import ndimage

from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.scene import Scene
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.grid import scene_frame
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.survey import data_windows, survey_scene
from sarhpc.tiling.tile import tile_shard

EDGE = "spacenet6_solaris/pan2.tif"
TRAIN = SplitConfig(fractions=[1.0, 0.0, 0.0])


class OneScene:
    """An archive of one scene."""

    def __init__(self, path: Path) -> None:
        self.scene = Scene(
            "s", {"sar": path}, {"sarhpc:range_direction": "+col", "sarhpc:calibration": "sigma0"}
        )

    def search(self, **_):
        yield self.scene


def edge_zeros(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The real image, and its zeros that hang together with its edge, by flood fill."""
    with rasterio.open(path) as dataset:
        assert dataset.nodata is None
        image = dataset.read(1)
    labels, _ = ndimage.label(image == 0)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return image, np.isin(labels, rim[rim > 0])


def test_the_real_32_percent_zero_edge_that_no_one_declared_is_found(test_data):
    image, edge = edge_zeros(test_data / EDGE)
    assert edge.mean() == pytest.approx(0.32, abs=0.01)
    reader = open_sar(OneScene(test_data / EDGE).scene)
    pixels, valid = reader.read((0, 600), (0, 600))
    assert (valid == ~edge).mean() > 0.999
    assert np.array_equal(pixels[valid], image[valid])


def test_tiles_on_the_zero_edge_are_rejected_and_the_others_kept_whole(test_data):
    _, edge = edge_zeros(test_data / EDGE)
    archive = OneScene(test_data / EDGE)
    cfg = TileConfig(tile_px=100, pixel_m=None, split=TRAIN, max_saturated=1.0)
    (shard,) = plan_scenes(archive.search(), cfg).shards
    tiled = tile_shard(0, shard, archive, cfg)
    kept = {tuple(sample.meta["window"][:2]): sample.meta for sample in tiled.samples}
    expected = {
        (row, col)
        for row in range(0, 600, 100)
        for col in range(0, 600, 100)
        if edge[row : row + 100, col : col + 100].mean() <= 0.05
    }
    assert set(kept) == expected
    assert tiled.rejected["nodata"] == 36 - len(expected) > 8


def test_data_in_a_corner_of_a_large_scene_is_found_by_the_survey():
    pixels = np.zeros((6000, 5000), np.float32)
    pixels[4700:5300, 4300:4700] = np.abs(white_speckle((600, 400), power=2.0))
    reader = array_reader(pixels, 0.35, valid=pixels > 0)
    cfg = TileConfig(survey_mpx=0.2)
    frame = scene_frame(reader.header, cfg.pixel_m)
    windows, _ = data_windows(reader, frame, 1.0)
    assert all(rows[1] > 4700 and cols[1] > 4300 for rows, cols in windows)
    found = survey_scene(reader, frame, cfg)
    lit = pixels[pixels > 0]
    assert found is not None
    assert found.normalisation.mu == pytest.approx(lit.mean(), rel=0.1)
    assert found.normalisation.top == pytest.approx(lit.mean() + 3 * lit.std(), rel=0.1)


def test_the_windows_with_data_keep_their_budget():
    reader = array_reader(np.ones((3000, 3000), np.float32), 0.35)
    frame = scene_frame(reader.header, 0.35)
    windows, _ = data_windows(reader, frame, 1.0)
    assert 8 <= len(windows) <= 16
    rows = np.array([window[0][0] for window in windows])
    assert rows.min() < 500
    assert rows.max() > 2000


HUGE = """
import resource, sys
from pathlib import Path
import numpy as np, rasterio
from rasterio.windows import Window
from sarhpc.archive.scene import Scene
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard
real, made = map(Path, sys.argv[1:])
with rasterio.open(real) as source:
    shape = source.shape
with rasterio.open(made, "w", driver="GTiff", width=shape[1], height=shape[0], count=1,
                   dtype="uint16", compress="deflate", tiled=True, sparse_ok=True) as target:
    noise = np.random.default_rng(0).rayleigh(300, (1600, 1600)).astype(np.uint16) + 1
    target.write(noise, 1, window=Window(24000, 14900, 1600, 1600))
def scene(path):
    return Scene(path.stem, {"sar": path}, {"sarhpc:range_direction": "+col",
                 "sarhpc:calibration": "sigma0", "sarhpc:spacing_m": [10.0, 10.0]})
class Archive:
    def search(self, **_):
        return iter([scene(made)])
cfg = TileConfig(pixel_m=None, split=SplitConfig(fractions=[1.0, 0.0, 0.0]), shard_samples=10000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
plan = plan_scenes([scene(real), scene(made)], cfg)
(shard,) = plan.shards
tiled = tile_shard(0, shard, Archive(), cfg)
kept = sum(1 for _ in tiled.samples)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(grown, kept, tiled.rejected["nodata"], plan.rejected[real.stem].split(":")[0], sep=";")
"""


@pytest.mark.slow
def test_a_nearly_empty_scene_of_16705_by_26102_is_tiled_in_bounded_memory(test_data, tmp_path):
    """The real emptied Sentinel-1 scene is refused by name; its size with one town is tiled.

    The whole would be 1.7 GB as amplitude.
    """
    name = "s1b-iw-grd-vv-20211223t051122-20211223t051147-030148-039993-001.tiff"
    command = [sys.executable, "-W", "ignore", "-c", HUGE]
    done = subprocess.run(
        [*command, str(test_data / "sentinel1" / name), str(tmp_path / "sparse.tif")],
        capture_output=True,
        text=True,
        check=True,
    )
    grown_mb, kept, empty, refused = done.stdout.strip().split(";")
    assert refused == "nodata"
    assert int(kept) == 2 * 3
    assert int(kept) + int(empty) == (16705 // 512) * (26102 // 512)
    assert int(grown_mb) < 200
