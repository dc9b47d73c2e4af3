"""The split by geography, and its proof."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from array_scenes import ArrayArchive, array_reader
from split_oracles import footprint_split, overlaps_across_splits, tile_splits

from hpc.errors import ConfigError
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.grid import scene_frame, tile_grid
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.splits.assignment import (
    check_split,
    split_buffer_m,
    split_of,
    with_cells_for,
)
from sarhpc.tiling.splits.footprint import tile_footprints
from sarhpc.tiling.splits.proof import check_proof


def metas(scene_id, cfg, shape=(4000, 4000), **header):
    """Split and footprint of every tile of a scene, as `meta.json` would say."""
    frame = scene_frame(array_reader(np.zeros((1, 1), np.complex64), **header).header, 0.35)
    frame = scene_frame(
        array_reader(np.broadcast_to(np.complex64(0), shape), **header).header, 0.35
    )
    grid = tile_grid(frame, cfg)
    tiles = list(grid.tiles())
    splits = tile_splits(scene_id, frame, grid, tiles, cfg)
    outlines = tile_footprints(frame, grid, tiles)
    places = [None] * len(tiles) if outlines is None else [o.tolist() for o in outlines]
    return [
        {"key": f"{scene_id}{tile}", "scene_id": scene_id, "split": split, "footprint": place}
        for tile, split, place in zip(tiles, splits, places, strict=True)
    ]


SMALL = SplitConfig(fractions=[0.5, 0.25, 0.25], cell_m=150.0, buffer_m=5.0, seed=4)


def config(**split):
    return TileConfig(tile_px=64, split=SplitConfig(**{**vars(SMALL), **split}))


def flown_twice():
    """The same ground from two headings and in another projection."""
    turned = (0.15, 0.13, 700_020.0, 0.13, -0.15, 6_249_950.0)
    utm = (0.2, 0.0, 500_000.0, 0.0, -0.2, 4_800_000.0)
    neighbour_zone = (0.2, 0.0, 13_000.0, 0.0, -0.2, 4_800_000.0)
    return [
        ("a", {}),
        ("b", {"affine": turned}),
        ("c", {"crs": "EPSG:32631", "affine": utm}),
        ("d", {"crs": "EPSG:32632", "affine": neighbour_zone}),
    ]


def test_no_two_tiles_of_different_splits_share_ground_even_when_imaged_again():
    tiles = [m for name, header in flown_twice() for m in metas(name, config(), **header)]
    kept = [tile for tile in tiles if tile["split"]]
    assert {tile["split"] for tile in kept} == {"train", "val", "test"}
    assert len(kept) < len(tiles)
    assert overlaps_across_splits(kept) == []


def test_the_proof_finds_a_leak():
    kept = [tile for tile in metas("a", config()) if tile["split"]]
    moved = {**kept[0], "key": "again", "split": "val" if kept[0]["split"] != "val" else "test"}
    assert overlaps_across_splits([*kept, moved]) == [tuple(sorted((kept[0]["key"], "again")))]


def test_tiles_of_different_splits_keep_twice_the_buffer_apart():
    cfg = config(buffer_m=20.0)
    kept = [tile for tile in metas("a", cfg) if tile["split"]]
    shift = 39.0 / 111_320
    grown = [
        {
            **t,
            "footprint": [[lon, lat + shift] for lon, lat in t["footprint"]],
            "key": t["key"] + "+",
        }
        for t in kept
    ]
    assert len({t["split"] for t in kept}) > 1
    assert overlaps_across_splits([*kept, *grown]) == []


def test_the_default_buffer_keeps_a_tile_diagonal_between_splits():
    assert split_buffer_m(TileConfig(), 0.35) == pytest.approx(512 * 0.35 * 2**0.5 / 2)
    assert split_buffer_m(TileConfig(split=SplitConfig(buffer_m=3.0)), 0.35) == 3.0


def test_splits_do_not_depend_on_the_scene_that_sees_the_ground():
    first = {str(m["footprint"]): m["split"] for m in metas("a", config())}
    again = {str(m["footprint"]): m["split"] for m in metas("zz", config())}
    assert first == again


def test_shares_are_met_over_many_cells():
    cfg = SplitConfig(fractions=[0.7, 0.2, 0.1])
    counts = Counter(split_of(f"{n}:{n * 7}", cfg) for n in range(20_000))
    for split, share in zip(("train", "val", "test"), cfg.fractions, strict=True):
        assert counts[split] / 20_000 == pytest.approx(share, abs=0.01)


def test_another_seed_deals_another_split():
    cells = [f"{n}:0" for n in range(200)]
    one, other = ([split_of(c, SplitConfig(seed=seed)) for c in cells] for seed in (0, 1))
    assert one != other


def test_a_split_with_all_the_ground_drops_nothing():
    tiles = metas("a", config(fractions=[0.0, 0.0, 1.0]))
    assert {tile["split"] for tile in tiles} == {"test"}


def test_scenes_without_crs_go_to_one_split_as_a_whole():
    by_scene = [{m["split"] for m in metas(f"s{n}", config(), crs=None)} for n in range(30)]
    assert all(len(splits) == 1 for splits in by_scene)
    assert set.union(*by_scene) == {"train", "val", "test"}


def test_one_scene_without_crs_in_two_splits_is_a_leak():
    tile = {"footprint": None, "scene_id": "a"}
    tiles = [{**tile, "key": "1", "split": "train"}, {**tile, "key": "2", "split": "val"}]
    assert overlaps_across_splits(tiles) == [("1", "2")]


def box(lon, lat, size=0.0004):
    corners = [(0, 0), (0, size), (size, size), (size, 0), (0, 0)]
    return np.array([[(lon + x + 180) % 360 - 180, lat + y] for x, y in corners])


def test_cells_close_around_the_antimeridian():
    cfg = SplitConfig(fractions=[0.5, 0.25, 0.25], cell_m=500.0)
    for lat in np.linspace(-60, 70, 40):
        east, west = box(179.9998, lat), box(-180.0002 + 360, lat)
        assert footprint_split(east, 0.0, cfg) == footprint_split(west, 0.0, cfg)
    tiles = [
        {"key": f"{lon}{lat}", "scene_id": "a", "footprint": place, "split": split}
        for lat in np.linspace(-60, 70, 60)
        for lon in (179.9990, 179.9993, 179.9996, 179.9998, -179.9999, -179.9996)
        for place in [box(lon, lat).tolist()]
        for split in [footprint_split(np.array(place), 0.0, cfg)]
        if split
    ]
    assert overlaps_across_splits(tiles) == []
    leak = [{**tiles[0], "split": "train"}, {**tiles[0], "key": "x", "split": "val"}]
    leak[1]["footprint"] = [[lon + 360, lat] for lon, lat in leak[0]["footprint"]]
    assert len(overlaps_across_splits(leak)) == 1


@pytest.mark.parametrize("fractions", [[1.0], [0.5, 0.5, 0.5], [1.5, -0.5, 0.0]])
def test_shares_that_do_not_add_up_are_refused(fractions):
    with pytest.raises(ConfigError, match="fractions"):
        check_split(SplitConfig(fractions=fractions))


def test_cells_without_size_are_refused():
    with pytest.raises(ConfigError, match="cell_m"):
        check_split(SplitConfig(cell_m=0))


def coarse_plan(**split):
    """Plan of 256 tiles of 5.12 km, as of 512 px of Sentinel-1, on a scene of 80 m pixels."""
    affine = (80.0, 0.0, 400_000.0, 0.0, -80.0, 4_800_000.0)
    field = np.random.default_rng(0).rayleigh(1, (1024, 1024)).astype(np.float32)
    reader = array_reader(field, crs="EPSG:32631", affine=affine, spacing_m=(80.0, 80.0))
    archive = ArrayArchive({"a": lambda: reader})
    cfg = TileConfig(tile_px=64, pixel_m=80.0, split=SplitConfig(**split))
    return plan_scenes(archive.search(), cfg, opener=archive.open)


def test_cells_follow_the_size_of_the_tiles():
    lost = {
        cell_m: [
            coarse_plan(cell_m=cell_m, seed=seed).counts.get("tiles_dropped_split_buffer", 0)
            for seed in range(4)
        ]
        for cell_m in (2000.0, 2001.0)
    }
    assert min(lost[2001.0]) > 180, "a cell smaller than a tile is all buffer"
    assert max(lost[2000.0]) < 110
    plan = coarse_plan()
    assert plan.proof["cell_m"] == 51_200.0
    check_proof(plan.proof)


def test_small_tiles_keep_the_cells_of_earlier_plans():
    assert with_cells_for(TileConfig(), []) == TileConfig()
    ten_m = TileConfig(pixel_m=None)
    assert with_cells_for(ten_m, [10.0, 3.0]).split.cell_m == 51_200.0
