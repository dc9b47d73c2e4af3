"""The search for overlaps of splits against comparing every pair, and cells of known width."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from split_oracles import overlaps_across_splits

from hpc.errors import ConfigError
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.splits.assignment import (
    METRES_PER_DEGREE,
    band_of_cells,
    cells_near,
    check_split,
    split_buffer_m,
    split_of,
)

Box = tuple[float, float, float, float]
"""West, south, east, north; the east may lie beyond 180."""


def tile(key: str, split: str, box: Box) -> dict[str, Any]:
    """The metadata of a tile with that ground; longitudes from -180 to 180, as PROJ gives them."""
    west, south, east, north = box
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    outline = [[(lon + 180) % 360 - 180, lat] for lon, lat in corners]
    return {"key": key, "split": split, "scene_id": key, "footprint": outline}


def meet(one: Box, other: Box) -> bool:
    """Whether the insides of two boxes share a point on the Earth."""
    if one[1] >= other[3] or other[1] >= one[3]:
        return False
    return any(
        one[0] < other[2] + turn and other[0] + turn < one[2] for turn in (-360.0, 0.0, 360.0)
    )


def every_pair(boxes: Sequence[Box], splits: Sequence[str]) -> list[tuple[str, str]]:
    pairs = itertools.combinations(range(len(boxes)), 2)
    found = [
        (f"{a:03d}", f"{b:03d}")
        for a, b in pairs
        if splits[a] != splits[b] and meet(boxes[a], boxes[b])
    ]
    return sorted(found)


@pytest.mark.parametrize("middle", [0.0, 12.0, 179.95, -179.95, 180.0])
@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_search_finds_what_comparing_every_pair_finds(
    middle: float, varied: bool, seed: int
) -> None:
    rng = np.random.default_rng([seed, varied, round(middle * 100) % 36_000])
    west, south = middle + rng.uniform(-0.5, 0.5, 120), rng.uniform(-0.4, 0.4, 120)
    size = rng.uniform(0.001, 0.12, (120, 2)) if varied else np.full((120, 2), 0.05)
    boxes = [(x, y, x + w, y + h) for x, y, (w, h) in zip(west, south, size.tolist(), strict=True)]
    splits = rng.choice(["train", "val", "test"], 120).tolist()
    tiles = [tile(f"{n:03d}", splits[n], box) for n, box in enumerate(boxes)]
    expected = every_pair(boxes, splits)
    assert len(expected) > 20
    assert overlaps_across_splits(tiles) == expected


@pytest.mark.parametrize("place", [(0.0, 0.0), (7.3, -1.2), (179.99, 40.0)])
@pytest.mark.parametrize("shift", list(itertools.product((-0.99, 0.0, 0.99), repeat=2)))
def test_two_boxes_that_share_a_corner_or_a_side_are_found_wherever_they_lie(
    place: tuple[float, float], shift: tuple[float, float]
) -> None:
    # A grid of squares lies anywhere relative to the boxes: try places all over one square.
    side = 0.02
    for part in np.linspace(0, 1, 7):
        lon, lat = place[0] + part * side, place[1] + part * side
        one = (lon, lat, lon + side, lat + side)
        dx, dy = shift[0] * side, shift[1] * side
        other = (lon + dx, lat + dy, lon + dx + side, lat + dy + side)
        tiles = [tile("a", "train", one), tile("b", "val", other)]
        assert overlaps_across_splits(tiles) == [("a", "b")]


def test_boxes_that_only_touch_share_no_ground() -> None:
    one = (0.0, 0.0, 0.25, 0.25)
    for other in ((0.25, 0.0, 0.5, 0.25), (0.0, 0.25, 0.25, 0.5), (0.25, 0.25, 0.5, 0.5)):
        assert overlaps_across_splits([tile("a", "train", one), tile("b", "val", other)]) == []


def test_a_tile_over_the_antimeridian_does_not_reach_round_the_earth() -> None:
    over = tile("over", "train", (179.99, 10.0, 180.01, 10.02))
    far = tile("far", "val", (0.0, 10.0, 0.02, 10.02))
    west = tile("west", "val", (-180.0, 10.0, -179.995, 10.02))
    assert overlaps_across_splits([over, far]) == []
    assert overlaps_across_splits([over, far, west]) == [("over", "west")]


def test_tiles_of_one_split_may_overlap() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    assert overlaps_across_splits([tile("a", "val", box), tile("b", "val", box)]) == []
    assert overlaps_across_splits([]) == []


def outline(west: float, south: float, east: float, north: float) -> np.ndarray:
    return np.array([[west, south], [east, south], [east, north], [west, north], [west, south]])


DEGREE = METRES_PER_DEGREE
"""A cell of this side is one degree high, and at the equator about one wide."""


def test_rows_of_cells_are_as_high_as_asked_and_hold_a_whole_number_of_nearly_that_width() -> None:
    assert METRES_PER_DEGREE == 111_320.0, "another length moves the cells of every plan"
    shrink, columns, width = band_of_cells(60, DEGREE)
    assert shrink == pytest.approx(math.cos(math.radians(60.5)))
    assert columns == round(360 * math.cos(math.radians(60.5)))
    assert columns * width == pytest.approx(360)
    assert width * shrink == pytest.approx(1, abs=0.01)
    assert band_of_cells(-61, DEGREE) == band_of_cells(60, DEGREE), "both halves of the Earth"
    assert band_of_cells(90, DEGREE) == (1e-3, 1, 360.0), "one cell around the pole"
    assert band_of_cells(0, DEGREE / 4)[1] == round(360 * math.cos(math.radians(0.125)) * 4)


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        ((0.4, 0.4, 0.6, 0.6), {"0:180"}),
        ((0.4, 0.4, 1.6, 0.6), {"0:180", "0:181"}),
        ((0.4, 0.4, 0.6, 1.6), {"0:180", "1:180"}),
        ((-0.6, -0.6, 0.6, 0.6), {"0:179", "0:180", "-1:179", "-1:180"}),
        ((179.4, 0.4, 180.6, 0.6), {"0:359", "0:0"}),
    ],
)
def test_a_box_touches_the_cells_of_its_rows_and_columns(box: Any, cells: set[str]) -> None:
    assert set(cells_near(outline(*box), 0.0, DEGREE)) == cells


def test_an_outline_over_the_antimeridian_is_one_box() -> None:
    wrapped = outline(179.4, 0.4, 180.6, 0.6)
    wrapped[:, 0] = (wrapped[:, 0] + 180) % 360 - 180
    assert set(cells_near(wrapped, 0.0, DEGREE)) == {"0:359", "0:0"}


@pytest.mark.parametrize(("buffer_m", "cells"), [(0.35, 1), (0.45, 2)])
@pytest.mark.parametrize("lat", [0.5, 60.5])
def test_the_buffer_is_in_metres_along_both_axes(lat: float, buffer_m: float, cells: int) -> None:
    # 0.4 of a cell's height from the neighbours to the west, the east, the south and the north.
    row = math.floor(lat)
    shrink, _, width = band_of_cells(row, DEGREE)
    edge = width * round(100 / width) - 180
    away = 0.4 / shrink
    for west in (edge + away, edge + width - away):
        box = outline(west, lat, west, lat)
        assert len(set(cells_near(box, buffer_m * DEGREE, DEGREE))) == cells
    for south in (row + 0.4, row + 0.6):
        middle = edge + width / 2
        box = outline(middle, south, middle, south)
        rows = {name.partition(":")[0] for name in cells_near(box, buffer_m * DEGREE, DEGREE)}
        assert len(rows) == cells


def test_what_touches_an_edge_counts_on_both_sides() -> None:
    assert set(cells_near(outline(0.0, 0.5, 0.5, 0.5), 0.0, DEGREE)) == {"0:179", "0:180"}
    assert set(cells_near(outline(0.5, 1.0, 0.5, 1.0), 0.0, DEGREE)) == {"0:180", "1:180"}


def test_the_default_buffer_is_half_the_diagonal_of_a_tile() -> None:
    assert split_buffer_m(TileConfig(tile_px=100), 2.0) == pytest.approx(math.hypot(100, 100))
    assert split_buffer_m(TileConfig(split=SplitConfig(buffer_m=0.0)), 2.0) == 0.0


@pytest.mark.parametrize(
    ("fractions", "missing"), [([0.5, 0.5, 0.0], "test"), ([0.0, 0.5, 0.5], "train")]
)
def test_a_split_without_a_share_gets_nothing(fractions: list[float], missing: str) -> None:
    cfg = SplitConfig(fractions=fractions)
    drawn = {split_of(str(n), cfg) for n in range(200)}
    assert drawn == {"train", "val", "test"} - {missing}


@pytest.mark.parametrize(
    ("fractions", "fits"),
    [
        ([1.0, 0.0, 0.0], True),
        ([0.5, 0.25, 0.25], True),
        ([0.5, 0.25, 0.2500001], True),
        ([0.5, 0.25, 0.251], False),
        ([0.5, 0.25, 0.249], False),
        ([1.1, -0.1, 0.0], False),
        ([0.5, 0.5], False),
        ([0.25, 0.25, 0.25, 0.25], False),
    ],
)
def test_shares_are_three_and_make_a_whole(fractions: list[float], fits: bool) -> None:
    if fits:
        check_split(SplitConfig(fractions=fractions))
    else:
        with pytest.raises(ConfigError, match="sum to 1"):
            check_split(SplitConfig(fractions=fractions))


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"by": "scene"}, r"tile\.split\.by="), ({"cell_m": 0.0}, r"tile\.split\.cell_m=")],
)
def test_a_split_by_nothing_known_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_split(SplitConfig(**changes))
    for known in ("cell", "line", "cell+line"):
        check_split(SplitConfig(by=known, cell_m=0.5))


def test_a_name_falls_into_the_same_split_on_every_machine() -> None:
    cfg = SplitConfig(fractions=[0.5, 0.25, 0.25], seed=4)
    assert [split_of(f"{n}:0", cfg) for n in range(8)] == [
        "train",
        "val",
        "train",
        "train",
        "test",
        "train",
        "test",
        "val",
    ]
