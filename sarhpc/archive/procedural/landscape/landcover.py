"""Land cover: parcels of fields, woods, water and roads, composed for the kind of scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.procedural.config import (
    BARE,
    CROP,
    GRASS,
    ROAD,
    SHRUB,
    WATER,
)
from sarhpc.archive.procedural.landscape.ground import Ground
from sarhpc.archive.procedural.noise import Field, cells, smooth_noise

Mask = NDArray[np.bool_]
Range = tuple[float, float]


@dataclass(frozen=True)
class Composition:
    """Ranges from which a scene of one kind draws its shares (0..1) and counts."""

    forest: Range = (0.02, 0.1)
    lake: Range = (0.0, 0.0)
    town: Range = (0.0, 0.0)
    river: float = 0.0
    """Probability of a river."""
    river_m: Range = (9.0, 26.0)
    road: float = 0.6
    """Probability of a road."""
    path: float = 0.5
    """Probability of an unpaved path."""
    farms: Range = (0.0, 1.5)
    trees_ha: Range = (0.5, 4.0)
    """Isolated trees per hectare."""
    hedge: Range = (0.0, 0.4)
    """Share of parcel borders with a hedge."""


COMPOSITIONS = {
    "water": Composition(forest=(0.02, 0.5), lake=(0.55, 0.9), road=0.3, farms=(0, 0.6), path=0.3),
    "forest": Composition(forest=(0.68, 0.97), river=0.12, road=0.3, farms=(0, 0.3), path=0.6),
    "field": Composition(forest=(0.0, 0.1), river=0.12, farms=(0, 1.2)),
    "town": Composition(
        forest=(0.0, 0.06), town=(0.72, 1.0), river=0.08, road=0.7, path=0.0, trees_ha=(6, 20)
    ),
    "mixed": Composition(
        forest=(0.12, 0.45), lake=(0.0, 0.12), town=(0.0, 0.3), river=0.4, river_m=(12, 40)
    ),
}

PARCEL_CLASSES = (CROP, GRASS, BARE, SHRUB)


def threshold_mask(noise: Field, share: float, within: tuple[slice, slice]) -> Mask:
    """Where `noise` is highest, so that `share` of the window `within` is covered."""
    if share <= 0:
        return np.zeros(noise.shape, dtype=bool)
    window = noise[within][::3, ::3]
    return noise > np.quantile(window, 1 - min(share, 1.0))


def blobs(rng: np.random.Generator, ground: Ground, scale_m: float) -> Field:
    """Noise whose level sets are irregular patches of about `scale_m`, with ragged borders."""
    shape, pixel = ground.grid.shape, ground.grid.pixel_m
    return smooth_noise(rng, shape, scale_m / pixel) + np.float32(0.22) * smooth_noise(
        rng, shape, scale_m / 5 / pixel
    )


def lay_parcels(rng: np.random.Generator, ground: Ground, hedge: float) -> Mask:
    """Cover the ground with parcels; returns where hedges grow (H, W)."""
    angle = rng.uniform(0, math.pi)
    u, v = _rotated(ground, angle)
    size = (float(rng.uniform(50, 95)), float(rng.uniform(32, 60)))
    parcels = cells(rng, u, v, size, 0.36)
    weights = rng.dirichlet((3.2, 1.5, 1.3, 1.0))
    kind = rng.choice(np.array(PARCEL_CLASSES, dtype=np.uint8), parcels.count, p=weights)
    ground.label[:] = kind[parcels.index]
    ground.tone[:] = rng.uniform(-1, 1, parcels.count).astype(np.float32)[parcels.index]
    turn = np.where(rng.random(parcels.count) < 0.5, 0.0, math.pi / 2)
    turn = (turn + rng.normal(0, 0.06, parcels.count)).astype(np.float32)
    _till(rng, ground, u, v, turn, parcels.index)
    border = (parcels.f2 - parcels.f1) * np.float32(min(size))
    margin = (border < 1.3) & (ground.label != SHRUB)
    ground.label[margin] = GRASS
    gaps = smooth_noise(rng, ground.grid.shape, 14.0 / ground.grid.pixel_m)
    return (border < 2.6) & threshold_mask(gaps, hedge, ground.grid.inside)


def _rotated(ground: Ground, angle: float) -> tuple[Field, Field]:
    """Coordinates (H, W) in metres along and across a direction `angle` from the range axis."""
    u, v = ground.grid.metres()
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return u * c + v * s, v * c - u * s


def _till(
    rng: np.random.Generator,
    ground: Ground,
    u: Field,
    v: Field,
    turn: Field,
    index: NDArray[np.int32],
) -> None:
    """Give crops their tramlines and vineyards their rows, along each parcel's own direction."""
    across = v * np.cos(turn)[index] - u * np.sin(turn)[index]
    vineyard = ground.label == SHRUB
    spacing = np.float32(rng.uniform(2.2, 2.8))
    phase = np.abs((across / spacing) % 1 - np.float32(0.5))
    vines = vineyard & (phase < 0.24)
    ground.canopy[vines] = 1.6
    ground.level_db[vineyard] += np.where(phase < 0.24, 1.2, -2.4).astype(np.float32)[vineyard]
    crop = (ground.label == CROP) | (ground.label == BARE)
    tram = np.abs((across / np.float32(12.0)) % 1 - np.float32(0.5))
    fine = np.sin(across * np.float32(2 * math.pi / 1.5))
    ripple = np.float32(0.5) * fine - np.float32(2.0) * (tram < 0.03)
    ground.level_db[crop] += ripple[crop]


@dataclass(frozen=True)
class Course:
    """A river, road or path: a gently curved strip across the scene."""

    kind: str
    width_m: float
    distance: Field
    """Distance of every pixel from the centre line (H, W), metres."""


def draw_course(
    rng: np.random.Generator,
    ground: Ground,
    kind: str,
    width_m: float,
    bend_m: float,
    wave_m: float,
) -> Course:
    """Course that swings by `bend_m` over about `wave_m`; added to the object list."""
    extent = ground.grid.size * ground.grid.pixel_m
    angle = rng.uniform(0, math.pi)
    centre = extent * rng.uniform(0.25, 0.75, 2)
    c, s = math.cos(angle), math.sin(angle)
    along, across = _rotated(ground, angle)
    origin = centre[0] * c + centre[1] * s, centre[1] * c - centre[0] * s
    waves = wave_m * rng.uniform(0.7, 1.6, 3) * (1.0, 0.55, 2.2)
    shifts = rng.uniform(0, 2 * math.pi, 3)
    heights = bend_m * np.array((0.6, 0.2, 0.7)) * rng.uniform(0.5, 1.0, 3)

    def offset(t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance across of the line at `t` metres along it."""
        return (
            sum(
                (h * np.sin(2 * math.pi * t / w + p))
                for h, w, p in zip(heights, waves, shifts, strict=True)
            )
            + origin[1]
        )

    knots = np.arange(-extent - 60, 2 * extent + 60, 1.0)
    line = offset(knots)
    slope = np.gradient(line, knots)
    middle = np.interp(along, knots, line).astype(np.float32)
    stretch = np.interp(along, knots, 1 / np.sqrt(1 + slope**2)).astype(np.float32)
    _list_course(ground, kind, width_m, knots * c - line * s, knots * s + line * c)
    return Course(kind, width_m, np.abs(across - middle) * stretch)


def _list_course(
    ground: Ground, kind: str, width_m: float, u: NDArray[np.float64], v: NDArray[np.float64]
) -> None:
    extent = ground.grid.size * ground.grid.pixel_m
    inside = (u > -10) & (u < extent + 10) & (v > -10) & (v < extent + 10)
    points = [ground.scene_pixels(a, b) for a, b in zip(u[inside], v[inside], strict=True)]
    if points:
        line = [list(p) for p in points[::8]]
        ground.objects.append({"kind": kind, "width_m": round(width_m, 1), "line": line})


def flow_river(rng: np.random.Generator, ground: Ground, width_m: Range) -> Mask:
    """Cut a river with grassy banks; returns where trees grow along it (H, W)."""
    course = draw_course(rng, ground, "river", float(rng.uniform(*width_m)), 17.0, 120.0)
    half = course.width_m / 2
    wobble = smooth_noise(rng, ground.grid.shape, 7.0 / ground.grid.pixel_m)
    distance = course.distance + np.float32(0.8) * wobble
    bank = distance < half + 4
    ground.label[bank] = GRASS
    _flood(ground, distance < half)
    return (distance > half + 1.5) & (distance < half + 7) & (wobble > 0.4)


def fill_lake(rng: np.random.Generator, ground: Ground, share: float) -> Mask:
    """Fill a lake over `share` of the scene behind a bare shore; returns the water (H, W)."""
    noise = blobs(rng, ground, float(rng.uniform(45, 90)))
    water = threshold_mask(noise, share, ground.grid.inside)
    shore = threshold_mask(noise, min(share + 0.025, 1.0), ground.grid.inside) & ~water
    ground.label[shore] = BARE
    ground.canopy[shore] = 0
    _flood(ground, water)
    # Wind roughens one lake more than the next, and patches of it.
    wind = np.float32(rng.uniform(-2.5, 2.5)) + smooth_noise(rng, noise.shape, 60.0)
    ground.level_db[water] = wind[water]
    return water


def _flood(ground: Ground, water: Mask) -> None:
    ground.label[water] = WATER
    for layer in (ground.canopy, ground.level_db, ground.roof, ground.tone):
        layer[water] = 0


def pave(ground: Ground, course: Course, barred: Mask) -> None:
    """Lay a road (asphalt with verges) or a path (bare ground) outside `barred` (H, W), a lake.

    A road crosses a river on a bridge; a path stops at the water.
    """
    half = course.width_m / 2
    code = ROAD if course.kind == "road" else BARE
    verge = (course.distance < half + 1.2) & (ground.label != WATER) & (ground.roof == 0)
    verge &= ~barred
    surface = verge & (course.distance < half)
    if course.kind == "road":
        surface = (course.distance < half) & (ground.roof == 0) & ~barred
    ground.label[verge] = GRASS
    ground.label[surface] = code
    ground.way |= surface
    for layer in (ground.canopy, ground.level_db):
        layer[verge | surface] = 0
    ground.tone[surface] = 0.0
