"""Slow and plain ways to the split of tiles, which the tests hold the plan against."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.shards.sample import SPLITS
from sarhpc.tiling import plan
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.grid import SceneFrame, TileGrid, TileIndex
from sarhpc.tiling.splits.assignment import cells_near, split_of


def footprint_split(outline: NDArray[np.float64], buffer_m: float, cfg: SplitConfig) -> str | None:
    """The one split of all cells that an outline (N, 2) in degrees comes near; None if several."""
    if 1 in cfg.fractions:
        return split_of("", cfg)
    splits = {split_of(cell, cfg) for cell in cells_near(outline, buffer_m, cfg.cell_m)}
    return splits.pop() if len(splits) == 1 else None


def tile_splits(
    scene_id: str, frame: SceneFrame, grid: TileGrid, tiles: Sequence[TileIndex], cfg: TileConfig
) -> list[str | None]:
    """The split that planning gives each tile; None for one too near to another split."""
    near = plan._near(frame, grid, np.array(tiles, np.int64).reshape(-1, 2), cfg)
    names = (*SPLITS, None)
    return [names[number] for number in plan._splits(scene_id, near, len(tiles), cfg)]


def overlaps_across_splits(tiles: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of tile keys of different splits whose ground may intersect, of `meta.json` values.

    Each tile is compared with each: by the bounding boxes of their footprints in degrees, or by
    their scene where they have none.
    """
    listed = list(tiles)
    placed = [tile for tile in listed if tile["footprint"] is not None]
    unplaced = [tile for tile in listed if tile["footprint"] is None]
    pairs = [
        (one["key"], other["key"])
        for one, other in itertools.combinations(unplaced, 2)
        if one["scene_id"] == other["scene_id"] and one["split"] != other["split"]
    ]
    boxes = np.array([_box(tile["footprint"]) for tile in placed]).reshape(-1, 4)
    splits = np.array([tile["split"] for tile in placed])
    for index, (west, south, east, north) in enumerate(boxes):
        turns = np.round((boxes[:, 0] - west) / 360) * 360
        hit = (boxes[:, 0] - turns < east) & (boxes[:, 2] - turns > west)
        hit &= (boxes[:, 1] < north) & (boxes[:, 3] > south) & (splits != splits[index])
        pairs += [(placed[index]["key"], placed[other]["key"]) for other in np.flatnonzero(hit)]
    return sorted({(min(pair), max(pair)) for pair in pairs})


def _box(footprint: list[list[float]]) -> tuple[float, float, float, float]:
    points = np.asarray(footprint)
    lon = np.unwrap(points[:, 0], period=360.0)
    return float(lon.min()), points[:, 1].min(), float(lon.max()), points[:, 1].max()
