"""Buildings: oriented boxes with roofs, walls that form dihedrals, and bright points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.procedural.backscatter import dihedral_sigma0
from sarhpc.archive.procedural.config import GRASS, ROAD, URBAN, WATER
from sarhpc.archive.procedural.landscape.ground import Ground, Points
from sarhpc.archive.procedural.landscape.landcover import Mask
from sarhpc.archive.procedural.landscape.terrain import AZIMUTH_MARGIN

YARD_DB = -5.0
"""Backscatter of a paved yard against a roof, dB."""
PITCH = 0.45
"""Slope of a gable roof, metres of rise per metre."""


@dataclass(frozen=True)
class Building:
    """A box, perhaps with a gable roof. Positions in metres from the scene's first corner."""

    u: float
    v: float
    length_m: float
    width_m: float
    height_m: float
    """Height of the eaves."""
    angle: float
    """Direction of the long side from the range axis, radians."""
    gable: bool
    tone: float


def raise_building(
    rng: np.random.Generator, ground: Ground, house: Building, yard: int = GRASS
) -> None:
    """Add one building to the ground: roof, label, walls, points, object list.

    It is skipped where it would overlap water or a road.
    """
    grid = ground.grid
    reach = math.hypot(house.length_m, house.width_m) / 2 + 4.0
    row, col = house.v / grid.pixel_m + AZIMUTH_MARGIN, house.u / grid.pixel_m + grid.near
    r0, r1 = (int(row + sign * reach / grid.pixel_m) for sign in (-1, 1))
    c0, c1 = (int(col + sign * reach / grid.pixel_m) for sign in (-1, 1))
    r0, c0, r1, c1 = max(r0, 0), max(c0, 0), min(r1, grid.shape[0]), min(c1, grid.shape[1])
    if r1 - r0 < 2 or c1 - c0 < 2:
        return
    box = (slice(r0, r1), slice(c0, c1))
    v = (np.arange(r0, r1)[:, None] + 0.5 - AZIMUTH_MARGIN) * grid.pixel_m - house.v
    u = (np.arange(c0, c1)[None, :] + 0.5 - grid.near) * grid.pixel_m - house.u
    c, s = math.cos(house.angle), math.sin(house.angle)
    along, across = np.abs(u * c + v * s), np.abs(v * c - u * s)
    inside = (along <= house.length_m / 2) & (across <= house.width_m / 2)
    if not inside.any() or np.isin(ground.label[box][inside], (WATER, ROAD)).mean() > 0.05:
        return
    rise = PITCH * (house.width_m / 2 - across) if house.gable else 0.0 * across
    _stand(ground, box, inside, house, rise, yard, along, across)
    _reflect(rng, ground, box, inside, house, along, across)
    place = ground.scene_pixels(house.u, house.v)
    if all(0 <= x < grid.size for x in place):
        ground.objects.append(
            {
                "kind": "building",
                "row": place[0],
                "col": place[1],
                "length_m": round(house.length_m, 1),
                "width_m": round(house.width_m, 1),
                "height_m": round(house.height_m, 1),
                "angle_deg": round(math.degrees(house.angle) % 180, 1),
            }
        )


def _stand(
    ground: Ground,
    box: tuple[slice, slice],
    inside: Mask,
    house: Building,
    rise: NDArray[np.float64],
    yard: int,
    along: NDArray[np.float64],
    across: NDArray[np.float64],
) -> None:
    around = (along <= house.length_m / 2 + 3) & (across <= house.width_m / 2 + 3) & ~inside
    if yard != GRASS:
        around &= ~np.isin(ground.label[box], (WATER, ROAD, URBAN))
        ground.label[box][around] = yard
        ground.tone[box][around] = 1.0
    ground.canopy[box][around | inside] = 0
    ground.level_db[box][around] = YARD_DB if yard == URBAN else 0.0
    ground.roof[box][inside] = (house.height_m + rise)[inside]
    ground.label[box][inside] = URBAN
    ground.tone[box][inside] = np.clip(house.tone, -1, 1)
    ground.level_db[box][inside] = 3.0 * house.tone


def _reflect(
    rng: np.random.Generator,
    ground: Ground,
    box: tuple[slice, slice],
    inside: Mask,
    house: Building,
    along: NDArray[np.float64],
    across: NDArray[np.float64],
) -> None:
    """Put the dihedral along the wall bases that face the sensor, and points on the facade."""
    base = np.zeros_like(inside)
    base[:, :-1] = inside[:, 1:] & ~inside[:, :-1]
    rows, cols = np.nonzero(base)
    if rows.size == 0:
        return
    long_wall = (
        house.width_m / 2 - across[rows, cols + 1] < house.length_m / 2 - along[rows, cols + 1]
    )
    line = house.angle + np.where(long_wall, 0.0, math.pi / 2)
    # The wall is broadside when its base line runs along azimuth.
    off = np.abs((line - math.pi / 2 + math.pi / 2) % math.pi - math.pi / 2)
    strength = dihedral_sigma0(house.height_m, off)
    fading = 10 ** rng.normal(0.0, 0.3, rows.size)
    ground.wall[box][rows, cols] = (strength * fading).astype(np.float32)
    count = int(rng.poisson(1.5 + house.length_m * house.width_m / 70))
    pick = rng.integers(0, rows.size, count)
    depth = rng.random(count) * np.where(rng.random(count) < 0.4, house.width_m * 0.7, 0.0)
    points = Points(
        (rows[pick] + box[0].start).astype(np.float64),
        cols[pick] + 1.0 + box[1].start + depth / ground.grid.pixel_m,
        house.height_m * np.where(depth > 0, 1.0, rng.random(count)),
        rng.lognormal(0.23, 1.15, count),
    )
    ground.points.append(points)
