"""Towns and farms: streets, blocks of oriented buildings, their walls and bright points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.procedural.backscatter import dihedral_sigma0
from sarhpc.archive.procedural.config import BARE, GRASS, ROAD, URBAN, WATER
from sarhpc.archive.procedural.ground import Ground, Points
from sarhpc.archive.procedural.landcover import Mask
from sarhpc.archive.procedural.terrain import AZIMUTH_MARGIN

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


@dataclass(frozen=True)
class TownStyle:
    """How a town is built: metres, and shares of what stands on its blocks."""

    block_u: float
    block_v: float
    street_m: float
    lot_m: float
    depth_m: float
    height_m: float
    terrace: float
    """Share of lots whose house fills the lot from side to side."""
    hall: float
    """Share of blocks with one large hall."""
    park: float
    """Share of blocks left green."""
    paved: float
    """Share of blocks whose open ground is paved."""


STYLES = (
    TownStyle(66, 44, 7.0, 16, 10, 4.5, 0.1, 0.0, 0.08, 0.1),
    TownStyle(58, 38, 8.0, 13, 12, 7.0, 0.75, 0.05, 0.06, 0.45),
    TownStyle(78, 56, 10.0, 26, 18, 6.5, 0.1, 0.6, 0.05, 0.75),
)
"""Suburb, old centre, industrial estate."""


def build_town(rng: np.random.Generator, ground: Ground, area: Mask) -> None:
    """Build streets and blocks over `area` (H, W); buildings enter the object list."""
    style = STYLES[rng.choice(len(STYLES), p=(0.45, 0.35, 0.2))]
    angle = float(rng.uniform(0, math.pi / 2))
    frame = _Frame.around(ground, angle)
    lines_u = _street_lines(rng, frame.low[0], frame.high[0], style.block_u)
    lines_v = _street_lines(rng, frame.low[1], frame.high[1], style.block_v)
    _lay_streets(ground, area, frame, lines_u, lines_v, style.street_m)
    for left, right in pairwise(lines_u):
        for low, high in pairwise(lines_v):
            box = _Block(left, right, low, high, style.street_m)
            _fill_block(rng, ground, area, frame, box, style)


def build_farms(rng: np.random.Generator, ground: Ground, count: int) -> None:
    """Build `count` farms: a few buildings about a paved yard, each with a bright dihedral."""
    extent = ground.grid.size * ground.grid.pixel_m
    for _ in range(count):
        centre = rng.uniform(0.1, 0.9, 2) * extent
        angle = float(rng.uniform(0, math.pi))
        sides = rng.permutation(4)[: rng.integers(2, 5)]
        for side in sides:
            turn = angle + side * math.pi / 2
            away = 13.0 + rng.uniform(0, 4)
            u = float(centre[0] - away * math.sin(turn))
            v = float(centre[1] + away * math.cos(turn))
            length, width = rng.uniform(12, 24), rng.uniform(8, 11)
            house = Building(
                u, v, length, width, float(rng.uniform(4, 7)), turn, True, float(rng.uniform(-1, 1))
            )
            raise_building(rng, ground, house, yard=BARE)


@dataclass(frozen=True)
class _Frame:
    """A street grid's own axes, rotated by `angle` from range and azimuth."""

    angle: float
    low: tuple[float, float]
    high: tuple[float, float]

    @classmethod
    def around(cls, ground: Ground, angle: float) -> _Frame:
        u, v = ground.grid.metres()
        c, s = math.cos(angle), math.sin(angle)
        corners = [
            (x * c + y * s, y * c - x * s) for x in (u.min(), u.max()) for y in (v.min(), v.max())
        ]
        along, across = zip(*corners, strict=True)
        return cls(angle, (min(along), min(across)), (max(along), max(across)))

    def ground(self, along: float, across: float) -> tuple[float, float]:
        c, s = math.cos(self.angle), math.sin(self.angle)
        return along * c - across * s, along * s + across * c


@dataclass(frozen=True)
class _Block:
    left: float
    right: float
    low: float
    high: float
    street_m: float


def _street_lines(rng: np.random.Generator, low: float, high: float, step: float) -> list[float]:
    start = low - step * rng.random()
    count = math.ceil((high - start) / (0.75 * step)) + 2
    return list(np.cumsum(np.r_[start, step * rng.uniform(0.75, 1.25, count)]))


def _lay_streets(
    ground: Ground,
    area: Mask,
    frame: _Frame,
    lines_u: list[float],
    lines_v: list[float],
    width: float,
) -> None:
    u, v = ground.grid.metres()
    c, s = np.float32(math.cos(frame.angle)), np.float32(math.sin(frame.angle))
    along, across = u * c + v * s, v * c - u * s
    street = (_gap(along, lines_u) < width / 2) | (_gap(across, lines_v) < width / 2)
    dry = area & (ground.label != WATER)
    ground.label[dry] = GRASS
    ground.tone[dry] = 0.2
    ground.label[dry & street] = ROAD
    for layer in (ground.canopy, ground.level_db):
        layer[dry] = 0
    # Kerbs, cars and gutters: a street is a little brighter than a country road.
    ground.level_db[dry & street] = 2.0


def _gap(position: NDArray[np.float32], lines: list[float]) -> NDArray[np.float32]:
    """Distance to the nearest line, by interpolating a saw-tooth that is zero on every line."""
    knots = np.array(lines)
    middles = (knots[1:] + knots[:-1]) / 2
    x = np.sort(np.r_[knots, middles])
    y = np.zeros_like(x)
    y[1::2] = np.diff(knots) / 2
    return np.interp(position, x, y).astype(np.float32)


def _fill_block(
    rng: np.random.Generator,
    ground: Ground,
    area: Mask,
    frame: _Frame,
    block: _Block,
    style: TownStyle,
) -> None:
    chance = rng.random(3)
    inset = style.street_m / 2 + 2.0
    u0, u1 = block.left + inset, block.right - inset
    v0, v1 = block.low + inset, block.high - inset
    yard = URBAN if chance[2] < style.paved else GRASS
    if chance[0] < style.park or min(u1 - u0, v1 - v0) < 12:
        return
    if chance[1] < style.hall:
        hall = _house(
            frame,
            (u0 + u1) / 2,
            (v0 + v1) / 2,
            0.8 * (u1 - u0),
            0.72 * (v1 - v0),
            style.height_m * rng.uniform(0.8, 1.5),
            0.0,
            False,
            rng.uniform(-1, 1),
        )
        _raise_inside(rng, ground, area, hall, yard)
        return
    for side in (v0, v1):
        _line_houses(rng, ground, area, frame, style, (u0, u1), side, 1 if side == v0 else -1, yard)


def _line_houses(
    rng: np.random.Generator,
    ground: Ground,
    area: Mask,
    frame: _Frame,
    style: TownStyle,
    span: tuple[float, float],
    edge: float,
    inward: int,
    yard: int,
) -> None:
    """Houses in a row along one side of a block."""
    count = max(1, int((span[1] - span[0]) / style.lot_m))
    lot = (span[1] - span[0]) / count
    tone = rng.uniform(-1, 1)
    for index in range(count):
        draw = rng.random(7)
        if draw[0] < 0.06:
            continue
        terrace = draw[1] < style.terrace
        length = lot * (0.98 if terrace else 0.5 + 0.3 * draw[2])
        width = style.depth_m * (0.8 + 0.35 * draw[3])
        across = edge + inward * (width / 2 + (0 if terrace else 3 * draw[4]))
        height = style.height_m * (0.8 + 0.5 * draw[5])
        house = _house(
            frame,
            span[0] + (index + 0.5) * lot,
            across,
            length,
            width,
            height,
            0.0 if terrace else 0.05 * (draw[2] - 0.5),
            draw[6] < 0.8,
            tone + 0.5 * (draw[4] - 0.5),
        )
        _raise_inside(rng, ground, area, house, yard)


def _house(
    frame: _Frame,
    along: float,
    across: float,
    length: float,
    width: float,
    height: float,
    turn: float,
    gable: bool,
    tone: float,
) -> Building:
    u, v = frame.ground(along, across)
    return Building(
        float(u),
        float(v),
        float(length),
        float(width),
        float(height),
        frame.angle + turn,
        bool(gable),
        float(tone),
    )


def _raise_inside(
    rng: np.random.Generator, ground: Ground, area: Mask, house: Building, yard: int
) -> None:
    row = int(house.v / ground.grid.pixel_m) + AZIMUTH_MARGIN
    col = int(house.u / ground.grid.pixel_m) + ground.grid.near
    rows, cols = ground.grid.shape
    if 0 <= row < rows and 0 <= col < cols and area[row, col]:
        raise_building(rng, ground, house, yard)


def raise_building(
    rng: np.random.Generator, ground: Ground, house: Building, yard: int = GRASS
) -> None:
    """Set one building on the ground: roof, label, walls, points, object list.

    It is left out where it would stand in water or on a road.
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
    ground.canopy[box][around | inside] = 0
    ground.level_db[box][around | inside] = 0
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
