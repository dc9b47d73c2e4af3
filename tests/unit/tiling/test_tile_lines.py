"""Splits by flight line, repeated acquisitions, and the proof stored with a plan."""

from __future__ import annotations

import numpy as np
import pytest
from array_scenes import ArrayArchive, array_reader, white_speckle
from split_oracles import overlaps_across_splits

from hpc.errors import ConfigError, VerificationError
from sarhpc.archive.scene import Scene
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.grid import scene_frame, tile_grid
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.splits.flight_lines import line_groups, reflown
from sarhpc.tiling.splits.footprint import tile_footprints
from sarhpc.tiling.splits.proof import check_proof, split_proof

FIELD = np.abs(white_speckle((600, 600)))
SPLIT = {"fractions": [0.5, 0.25, 0.25], "cell_m": 150.0, "buffer_m": 5.0, "seed": 4}


def scene(name, west=2.0, south=48.0, line=None, size=0.01):
    properties = {} if line is None else {"sarhpc:flight_line": line}
    return Scene(name, {}, properties, (west, south, west + size, south + size))


def flights(placed):
    """An archive of scenes at (x, y, flight line), with the boxes of their items."""
    readers, scenes = {}, {}
    for name, (x, y, line) in placed.items():
        affine = (0.35, 0.0, 700_000.0 + x, 0.0, -0.35, 6_250_000.0 - y)
        reader = array_reader(FIELD, 0.35, affine=affine)
        frame = scene_frame(reader.header, 0.35)
        grid = tile_grid(frame, TileConfig(tile_px=600))
        lon, lat = tile_footprints(frame, grid, [(0, 0)])[0].T
        readers[name] = lambda r=reader: r
        properties = {} if line is None else {"sarhpc:flight_line": line}
        box = (lon.min(), lat.min(), lon.max(), lat.max())
        scenes[name] = Scene(name, {}, properties, box)
    return ArrayArchive(readers, scenes)


def planned(archive, **split):
    cfg = TileConfig(tile_px=64, split=SplitConfig(**{**SPLIT, **split}))
    return plan_scenes(archive.search(), cfg, opener=archive.open), cfg


def placed_tiles(plan, archive, cfg):
    """Split, scene and footprint of every planned tile."""
    for shard in plan.shards:
        frame = scene_frame(archive.readers[shard["scene_id"]]().header, cfg.pixel_m)
        tiles = [tuple(tile) for tile in shard["tiles"]]
        outlines = tile_footprints(frame, tile_grid(frame, cfg), tiles)
        for tile, outline in zip(tiles, outlines, strict=True):
            yield {
                "key": f"{shard['scene_id']}{tile}",
                "scene_id": shard["scene_id"],
                "split": shard["split"],
                "footprint": outline.tolist(),
            }


# Two lines of three overlapping scenes each, crossed by none, and single scenes around.
MANY = {
    **{f"a{k}": (150 * k, 0, "A") for k in range(3)},
    **{f"b{k}": (150 * k, 1000, "B") for k in range(3)},
    **{f"c{k}": (400 * k, 3000 + 400 * k, None) for k in range(8)},
    "z": (60, 1040, "C"),
}


@pytest.mark.parametrize("by", ["cell", "line", "cell+line"])
def test_no_split_shares_ground_with_another_and_the_proof_says_so(by):
    archive = flights(MANY)
    plan, cfg = planned(archive, by=by)
    tiles = list(placed_tiles(plan, archive, cfg))
    assert len({tile["split"] for tile in tiles}) == 3
    assert overlaps_across_splits(tiles) == []
    check_proof(plan.proof)
    assert plan.proof["contested_cells"] == 0
    assert set(plan.proof["cells"]) == {"train", "val", "test"}
    assert plan.proof["by"] == by


@pytest.mark.parametrize("by", ["line", "cell+line"])
def test_a_flight_line_lies_in_one_split(by):
    plan, _ = planned(flights(MANY), by=by)
    splits = {}
    for shard in plan.shards:
        splits.setdefault(shard["scene_id"][0], set()).add(shard["split"])
    assert len(splits["a"]) == len(splits["b"]) == 1
    assert plan.proof["contested_lines"] == 0


def test_by_line_drops_nothing_and_by_both_says_what_it_drops():
    archive = flights(MANY)
    whole, _ = planned(archive, by="line")
    both, _ = planned(archive, by="cell+line")
    assert whole.counts["tiles"] == len(MANY) * 81
    assert not [name for name in whole.counts if "split" in name]
    assert both.counts["tiles_dropped_split_line"] > 0
    dropped = sum(both.counts[name] for name in both.counts if "dropped_split" in name)
    assert both.counts["tiles"] + dropped == len(MANY) * 81


def test_lines_that_cross_or_come_near_are_one_group_whatever_the_order():
    scenes = [
        scene("s1", 2.0, line="north"),
        scene("s2", 2.5, line="north"),
        scene("s3", 2.505, line="cross"),
        scene("s4", 2.52, line="near"),
        scene("s5", 9.0),
        Scene("s6", {}, {"sarhpc:flight_line": "north"}),
    ]
    near = line_groups(scenes, SplitConfig(), 180.0)
    assert near == line_groups(reversed(scenes), SplitConfig(), 180.0)
    assert len({near[name] for name in ("s1", "s2", "s3", "s6")}) == 1
    assert near["s4"] == "line:near"
    assert near["s5"] == "scene:s5"
    # 2.515 to 2.52 degrees is 372 m: two buffers of 190 m meet.
    assert line_groups(scenes, SplitConfig(), 190.0)["s4"] == near["s1"]


def test_repeated_ground_is_listed_also_across_the_antimeridian():
    scenes = [
        scene("c", 2.0),
        scene("a", 2.005),
        scene("far", 2.5),
        Scene("w", {}, {}, (179.99, 0.0, -179.99, 0.02)),
        Scene("e", {}, {}, (-179.995, 0.01, -179.9, 0.1)),
        Scene("local", {}),
    ]
    assert reflown(scenes) == [("a", "c"), ("e", "w")]


def test_a_plan_lists_scenes_of_the_same_ground():
    plan, _ = planned(flights(MANY))
    assert ("b0", "z") in plan.reflown
    assert ("a0", "b0") not in plan.reflown


def test_a_leak_breaks_the_proof():
    owners = [("1:1", "train"), ("1:2", "val"), ("1:1", "test")]
    leaking = split_proof(owners, [], by="cell", cell_m=2000.0, buffer_m=100.0)
    with pytest.raises(VerificationError, match="1:1"):
        check_proof(leaking)
    lines = [("line:A", "train"), ("line:A", "val")]
    torn = split_proof(owners[:2], lines, by="line", cell_m=2000.0, buffer_m=100.0)
    with pytest.raises(VerificationError, match="line:A"):
        check_proof(torn)
    check_proof({**torn, "by": "cell"})


def test_the_digest_of_a_proof_is_that_of_its_cells():
    owners = [("1:1", "train"), ("1:2", "val")]

    def digest(cells):
        return split_proof(cells, [], by="cell", cell_m=2e3, buffer_m=None)["sha256"]

    assert digest(owners) == digest(owners[::-1])
    assert digest(owners) != digest([("1:1", "train"), ("1:2", "test")])


def test_lines_without_a_known_distance_or_a_known_way_are_refused():
    archive = flights({"a": (0, 0, "A")})
    cfg = TileConfig(tile_px=64, pixel_m=None, split=SplitConfig(by="line"))
    with pytest.raises(ConfigError, match=r"set tile\.split\.buffer_m"):
        plan_scenes(archive.search(), cfg, opener=archive.open)
    with pytest.raises(ConfigError, match="cell\\+line"):
        planned(archive, by="orbit")
