"""Plans of many tiles: the cells of many tiles at once, and what a tile costs in a plan."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from array_scenes import array_reader
from slowness import slowness
from split_oracles import footprint_split, tile_splits

from sarhpc.archive.scene import Scene
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.grid import SceneFrame, TileGrid, scene_frame, tile_grid
from sarhpc.tiling.plan import plan_scene
from sarhpc.tiling.splits.assignment import cells_near, split_buffer_m
from sarhpc.tiling.splits.earth_cells import near_cells
from sarhpc.tiling.splits.footprint import tile_footprints

REPOSITORY = Path(__file__).resolve().parents[3]
UTM = "EPSG:32631"
FLAT = (0.35, 0.0, 500_000.0, 0.0, -0.35, 5_000_000.0)
TURNED = (0.3, 0.18, 420_000.0, 0.18, -0.3, 5_000_000.0)


def placed(
    crs: str, affine: tuple[float, ...], shape: tuple[int, int], cfg: TileConfig
) -> tuple[SceneFrame, TileGrid]:
    spacing = float(np.hypot(affine[1], affine[4])), float(np.hypot(affine[0], affine[3]))
    pixels = np.broadcast_to(np.float32(1), shape)
    header = array_reader(pixels, spacing, crs=crs, affine=affine).header
    frame = scene_frame(header, cfg.pixel_m)
    return frame, tile_grid(frame, cfg)


def by_outlines(
    frame: SceneFrame, grid: TileGrid, tiles: np.ndarray, buffer_m: float, cell_m: float
) -> list[set[str]]:
    outlines = tile_footprints(frame, grid, [(int(r), int(c)) for r, c in tiles])
    assert outlines is not None
    return [set(cells_near(outline, buffer_m, cell_m)) for outline in outlines]


@pytest.mark.parametrize(
    ("crs", "affine", "shape"),
    [
        (UTM, FLAT, (9_000, 11_000)),
        (UTM, TURNED, (9_000, 11_000)),
        ("EPSG:2154", (0.35, 0.0, 700_000.0, 0.0, -0.35, 6_250_000.0), (7_000, 9_000)),
        ("EPSG:32733", (10.0, 0.0, 400_000.0, 0.0, -10.0, 6_400_000.0), (9_000, 9_000)),
        ("EPSG:3413", (3.0, 0.0, -300_000.0, 0.0, -3.0, -1_900_000.0), (9_000, 9_000)),
        ("EPSG:3413", (3.0, 0.0, -13_000.0, 0.0, -3.0, 13_000.0), (9_000, 9_000)),
        ("EPSG:32660", (3.0, 0.0, 830_000.0, 0.0, -3.0, 3_000_000.0), (9_000, 9_000)),
    ],
    ids=["utm", "turned", "lambert", "south, 90 km", "polar", "at the pole", "antimeridian"],
)
@pytest.mark.parametrize("cell_m", [150.0, 2000.0])
def test_many_tiles_come_near_the_very_cells_of_their_outlines(
    crs: str, affine: tuple[float, ...], shape: tuple[int, int], cell_m: float
) -> None:
    cfg = TileConfig(tile_px=256, stride_px=200, pixel_m=None)
    frame, grid = placed(crs, affine, shape, cfg)
    tiles = grid.indices()
    assert len(tiles) > 1000
    chosen = tiles[np.random.default_rng(1).permutation(len(tiles))[:900]]
    near = near_cells(frame, grid, chosen, 30.0, cell_m)
    assert near is not None
    found: list[set[str]] = [set() for _ in chosen]
    for tile, cell in zip(near.tile, near.cell, strict=True):
        found[tile].add(near.names[cell])
    assert found == by_outlines(frame, grid, chosen, 30.0, cell_m)
    assert (np.diff(near.tile) >= 0).all()


def test_splits_of_a_large_scene_are_those_of_its_outlines() -> None:
    split = SplitConfig(fractions=[0.5, 0.3, 0.2], cell_m=700.0, buffer_m=25.0, seed=3)
    cfg = TileConfig(tile_px=128, split=split)
    frame, grid = placed(UTM, FLAT, (6_000, 8_000), cfg)
    tiles = list(grid.tiles())
    outlines = tile_footprints(frame, grid, tiles)
    assert outlines is not None
    expected = [footprint_split(outline, split_buffer_m(cfg, 0.35), split) for outline in outlines]
    assert tile_splits("scene", frame, grid, tiles, cfg) == expected
    assert {None, "train", "val", "test"} == set(expected)
    assert tile_splits("scene", frame, grid, [], cfg) == []


def test_order_of_tiles_is_block_by_block() -> None:
    grid = TileGrid(rows=5, cols=7, tile_px=8, stride_px=8, block_tiles=2)
    everything = [(row, col) for row in range(5) for col in range(7)]
    assert list(grid.tiles()) == sorted(everything, key=lambda t: (grid.block_of(t), t))
    assert list(TileGrid(0, 3, 8, 8, 2).tiles()) == []


def test_a_scene_outside_its_crs_is_reported() -> None:
    affine = (0.35, 0.0, 9e9, 0.0, -0.35, 9e9)
    reader = array_reader(np.ones((6_000, 6_000), np.float32), 0.35, crs=UTM, affine=affine)
    plan = plan_scene(Scene("far", {}), TileConfig(tile_px=128), lambda _: reader)
    assert plan.rejected == "unreadable"
    assert "outside the area of its CRS" in plan.detail


@pytest.mark.slow
def test_a_tile_costs_a_plan_microseconds_and_bytes() -> None:
    """Ten million tiles in a minute and 2 GB are 6 us and 200 bytes each; a slow machine is let
    take twice the time. By outlines a tile took 110 us.
    """
    script = REPOSITORY / "tools" / "bench_plan.py"
    done = subprocess.run(
        [sys.executable, str(script), "--tiles", "500000"],
        check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    found = re.search(
        r"(\d+) tiles kept, .* ([\d.]+) us a tile, (\d+) bytes a tile", done.stdout.splitlines()[-1]
    )
    assert found is not None, done.stdout
    assert int(found[1]) > 400_000
    assert float(found[2]) < 12 * slowness()
    assert int(found[3]) < 200
