"""Trees: the crowns of woods, hedges and isolated trees, as heights over the terrain."""

from __future__ import annotations

import math

import numpy as np

from sarhpc.archive.procedural.config import FOREST, ROAD, URBAN, WATER
from sarhpc.archive.procedural.landscape.ground import Ground
from sarhpc.archive.procedural.landscape.landcover import Mask
from sarhpc.archive.procedural.noise import cells, smooth_noise


def grow_trees(
    rng: np.random.Generator, ground: Ground, wood: Mask, crown_m: float, height_m: float
) -> None:
    """Add domed crowns of about `crown_m` where `wood`, up to `height_m` with variation.

    A crown is kept if its stem is inside, so that borders are scalloped like real ones.
    """
    if not wood.any():
        return
    rows, cols = np.nonzero(wood)
    reach = math.ceil(crown_m / ground.grid.pixel_m)
    box = (
        slice(max(rows.min() - reach, 0), rows.max() + reach + 1),
        slice(max(cols.min() - reach, 0), cols.max() + reach + 1),
    )
    u, v = ground.grid.metres()
    u, v = np.broadcast_arrays(u[:, box[1]], v[box[0]])
    crowns = cells(rng, u, v, (crown_m, crown_m), 0.45)
    pixel = ground.grid.pixel_m
    stem_row = np.clip((crowns.seed_v / pixel).astype(np.intp) + _top(ground), 0, wood.shape[0] - 1)
    stem_col = np.clip(
        (crowns.seed_u / pixel).astype(np.intp) + ground.grid.near, 0, wood.shape[1] - 1
    )
    vigour = rng.normal(1.0, 0.11, crowns.count).astype(np.float32)[crowns.index]
    stand = smooth_noise(rng, u.shape, 22.0 / pixel) * np.float32(0.08) + 1
    radius = np.float32(0.78)
    dome = 1 - np.float32(0.42) * (crowns.f1 / radius) ** 2
    height = np.float32(height_m) * vigour * stand * dome
    fertile = ~np.isin(ground.label, (WATER, ROAD, URBAN))
    grown = wood[stem_row, stem_col] & (crowns.f1 < radius) & fertile[box]
    _plant(ground, box, grown, np.clip(height, 1.5, 25.0), (vigour - 1) * 4)


def _top(ground: Ground) -> int:
    return ground.grid.inside[0].start


def _plant(
    ground: Ground, box: tuple[slice, slice], grown: Mask, height: np.ndarray, tone: np.ndarray
) -> None:
    canopy = ground.canopy[box]
    canopy[grown] = np.maximum(canopy, height)[grown]
    ground.label[box][grown] = FOREST
    ground.tone[box][grown] = np.clip(tone, -1, 1)[grown]
    ground.level_db[box][grown] = 0


def scatter_trees(rng: np.random.Generator, ground: Ground, per_hectare: float) -> None:
    """Plant isolated trees on open ground; they are added to the object list."""
    pixel = ground.grid.pixel_m
    rows, cols = ground.grid.shape
    count = rng.poisson(per_hectare * rows * cols * pixel**2 / 1e4)
    places = rng.random((count, 2)) * (rows, cols)
    for (row, col), draw in zip(places, rng.random((count, 2)), strict=True):
        radius = 1.6 + 2.2 * draw[0]
        if ground.label[int(row), int(col)] in (WATER, ROAD, URBAN, FOREST):
            continue
        _plant_tree(ground, row, col, radius, radius * (1.8 + draw[1]))


def _plant_tree(ground: Ground, row: float, col: float, radius_m: float, height_m: float) -> None:
    pixel = ground.grid.pixel_m
    reach = radius_m / pixel
    box = (
        slice(max(int(row - reach), 0), int(row + reach) + 2),
        slice(max(int(col - reach), 0), int(col + reach) + 2),
    )
    label = ground.label[box]
    r = np.arange(label.shape[0], dtype=np.float32)[:, None] + (box[0].start + 0.5 - row)
    c = np.arange(label.shape[1], dtype=np.float32)[None, :] + (box[1].start + 0.5 - col)
    shape = 1 - (r**2 + c**2).astype(np.float32) / np.float32(reach**2)
    grown = (shape > 0) & ~np.isin(label, (WATER, ROAD, URBAN))
    tone = np.full(label.shape, math.sin(row * 7 + col), dtype=np.float32)
    _plant(
        ground, box, grown, np.float32(height_m) * (0.4 + 0.6 * np.sqrt(np.maximum(shape, 0))), tone
    )
    place = (row - _top(ground), col - ground.grid.near)
    if all(0 <= x < ground.grid.size for x in place):
        ground.objects.append(
            {"kind": "tree", "row": round(place[0], 1), "col": round(place[1], 1)}
        )
