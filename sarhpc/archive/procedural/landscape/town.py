"""Towns and farms: streets, and blocks of oriented buildings along them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.procedural.config import BARE, GRASS, ROAD, URBAN, WATER
from sarhpc.archive.procedural.landscape.buildings import Building, raise_building
from sarhpc.archive.procedural.landscape.ground import Ground
from sarhpc.archive.procedural.landscape.landcover import Mask
from sarhpc.archive.procedural.landscape.terrain import AZIMUTH_MARGIN


@dataclass(frozen=True)
class TownStyle:
    """Parameters of a town: metres, and shares of blocks by use."""

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
    """Build streets and blocks over `area` (H, W); buildings are added to the object list."""
    style = STYLES[rng.choice(len(STYLES), p=(0.45, 0.35, 0.2))]
    # Houses follow one of the two street directions: a quarter turn would bias azimuth.
    angle = float(rng.uniform(0, math.pi))
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
        """The frame turned by `angle` that holds all of `ground`."""
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
