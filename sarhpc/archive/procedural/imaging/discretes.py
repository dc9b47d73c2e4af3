"""Discrete scatterers that are in no list of objects: vehicles, fences, posts, stems, stones.

Part of radiometry 2. Objects stand in rows along the directions of the buildings, denser where
buildings are near; each is a rectangle of scattering bodies (a Neyman-Scott cluster process) whose
cross sections spread over decades. A body extends over about a resolution cell, and its return
fluctuates like speckle; ideal points are those of `Ground`. Densities and cross sections of what
stands near buildings were tuned on the car park of GOTCHA (docs/simulator.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sarhpc.archive.procedural.config import LABELS, URBAN
from sarhpc.archive.procedural.landscape.ground import Ground, Points
from sarhpc.archive.procedural.noise import Field

NEPER_PER_DB = math.log(10) / 10
BUILT_REACH_M = 15.0
"""Distance over which buildings and yards make their surroundings built-up, metres."""
BUILT_SHARE = 0.05
"""Share of built-up ground around a place from which it counts as built-up."""
BODY_M = 0.3
"""Standard deviation of the extent of one body, metres."""


@dataclass(frozen=True)
class Discretes:
    """Discrete scatterers of one class of ground."""

    rows_per_hectare: float
    objects: tuple[int, int]
    """Least and most objects in a row, side by side."""
    size_m: tuple[float, float]
    """Length and width of an object, metres."""
    bodies: tuple[int, int]
    """Least and most bodies of an object."""
    median_m2: float
    """Median radar cross section of a body, m^2."""
    spread_db: float
    """Standard deviation of the cross section, dB; its law is log-normal."""
    height_m: float = 0.0
    """Height of an opaque object, which casts a shadow, metres."""


@dataclass(frozen=True)
class DiscreteLayers:
    """What discrete scatterers add to an image and take from it, (H, W)."""

    power: NDArray[np.float64]
    """Mean power as sigma0."""
    hidden: NDArray[np.bool_]
    """Ground in their shadow."""


GAP_M = 0.9
"""Distance between the objects of a row, metres."""

BUILT_UP = {
    "road": Discretes(60.0, (1, 6), (4.3, 1.7), (6, 14), 1.4, 6.0, 1.5),
    "urban": Discretes(120.0, (1, 6), (4.3, 1.7), (6, 14), 1.4, 6.0, 1.5),
    "grass": Discretes(16.0, (1, 2), (4.3, 1.7), (6, 14), 1.4, 6.0, 1.5),
    "bare": Discretes(25.0, (1, 3), (4.3, 1.7), (2, 8), 1.0, 6.0, 1.5),
}
"""By class, where buildings are near: vehicles on streets, in yards and drives, and of farms."""

OPEN_LAND = {
    "road": Discretes(8.0, (1, 1), (0.5, 0.5), (1, 2), 0.5, 6.0),
    "bare": Discretes(4.0, (1, 1), (1.0, 1.0), (1, 2), 0.2, 6.0),
    "grass": Discretes(3.0, (1, 1), (1.0, 1.0), (1, 2), 0.2, 6.0),
    "crop": Discretes(3.0, (1, 1), (0.5, 0.5), (1, 2), 0.2, 6.0),
    "shrub": Discretes(50.0, (1, 1), (0.5, 0.5), (1, 2), 0.2, 6.0),
    "forest": Discretes(150.0, (1, 1), (2.0, 2.0), (1, 3), 0.4, 7.0),
}
"""By class, elsewhere: posts, stones, machines, stakes of vines, boughs."""


def log_normal(
    rng: np.random.Generator, median: float, spread_db: float, count: int
) -> NDArray[np.float64]:
    """`count` log-normal values, of the unit of `median`."""
    return median * np.exp(NEPER_PER_DB * spread_db * rng.standard_normal(count))


def discrete_layers(
    rng: np.random.Generator, ground: Ground, lit: NDArray[np.float64], incidence: float
) -> DiscreteLayers:
    """Power and shadow of the discrete scatterers; those out of sight return nothing.

    None stands on a roof: what does is among the points of the building.

    Args:
        rng: stream of the ground, so that a repeated flight line finds them again.
        ground: layers on the working grid.
        lit: share of each pixel of the ground that the antenna sees, (H, W).
        incidence: angle at the middle of the scene, radians.
    """
    near = _built_up(ground)
    energy = np.zeros(ground.grid.shape)
    hidden = np.zeros(ground.grid.shape, dtype=bool)
    for laws, here in ((BUILT_UP, near), (OPEN_LAND, ~near)):
        for name, law in laws.items():
            where = here & (ground.label == LABELS.index(name)) & (ground.roof == 0)
            objects = _objects(rng, law, where, ground)
            _add(energy, _bodies(rng, law, objects, ground), ground, lit, 1 / math.tan(incidence))
            if law.height_m > 0:
                hidden |= _shadow(law, objects, ground, law.height_m * math.tan(incidence))
    extent = BODY_M / ground.grid.pixel_m
    return DiscreteLayers(ndimage.gaussian_filter(energy, extent, mode="constant"), hidden)


def _built_up(ground: Ground) -> NDArray[np.bool_]:
    built: Field = (ground.label == URBAN).astype(np.float32)
    reach = int(2 * BUILT_REACH_M / ground.grid.pixel_m) | 1
    near: NDArray[np.bool_] = ndimage.uniform_filter(built, reach, mode="nearest") > BUILT_SHARE
    return near


@dataclass(frozen=True)
class _Objects:
    """Middles in rows and columns (N, 2), and directions from range in radians (N,)."""

    middle: NDArray[np.float64]
    angle: NDArray[np.float64]

    def repeated(self, count: NDArray[np.int64] | int) -> _Objects:
        return _Objects(np.repeat(self.middle, count, axis=0), np.repeat(self.angle, count))


def _objects(
    rng: np.random.Generator, law: Discretes, where: NDArray[np.bool_], ground: Ground
) -> _Objects:
    """Objects of the rows of a class whose middles lie in `where`."""
    shape, pixel = np.array(where.shape), ground.grid.pixel_m
    rows = int(rng.poisson(law.rows_per_hectare * shape.prod() * pixel**2 / 1e4))
    middle, angle = rng.random((rows, 2)) * shape, _directions(rng, ground, rows)
    count = rng.integers(law.objects[0], law.objects[1] + 1, rows)
    row = _Objects(middle, angle).repeated(count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - (count + 1) / 2, count)
    across = place * (law.size_m[1] + GAP_M)
    middle = row.middle + _turned(row.angle, np.zeros_like(across), across) / pixel
    inside = np.flatnonzero(((middle >= 0) & (middle < shape)).all(axis=1))
    stands = inside[where[tuple(middle[inside].astype(np.intp).T)]]
    return _Objects(middle[stands], row.angle[stands])


def _bodies(rng: np.random.Generator, law: Discretes, objects: _Objects, ground: Ground) -> Points:
    """Bodies of objects, their heights as shares of the canopy around."""
    of = objects.repeated(rng.integers(law.bodies[0], law.bodies[1] + 1, len(objects.angle)))
    # Of two places the one nearer to the antenna: the side that faces it returns most.
    tries = rng.random((2, *of.middle.shape)) - 0.5
    tries = np.stack([_turned(of.angle, *(t * law.size_m).T) for t in tries])
    nearer = (tries[1, :, 1] < tries[0, :, 1]).astype(np.intp)
    place = of.middle + tries[nearer, np.arange(len(nearer))] / ground.grid.pixel_m
    rcs = log_normal(rng, law.median_m2, law.spread_db, len(place))
    return Points(place[:, 0], place[:, 1], rng.uniform(0.5, 1.0, len(place)), rcs)


def _shadow(
    law: Discretes, objects: _Objects, ground: Ground, length_m: float
) -> NDArray[np.bool_]:
    """Where objects stand or cast a shadow of `length_m` (H, W); the return is their bodies'."""
    steps = [np.arange(-size / 2, size / 2, 0.25) + 0.125 for size in law.size_m]
    along, across = (axis.ravel() for axis in np.meshgrid(*steps))
    count = along.size
    of = objects.repeated(count)
    place = _turned(
        of.angle, np.tile(along, len(objects.angle)), np.tile(across, len(objects.angle))
    )
    row, col = np.floor(of.middle + place / ground.grid.pixel_m).astype(np.intp).T
    rows, cols = ground.grid.shape
    inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
    covered = np.zeros((rows, cols), dtype=bool)
    covered[row[inside], col[inside]] = True
    reach = int(length_m / ground.grid.pixel_m) + 1
    return np.asarray(
        ndimage.maximum_filter1d(covered, reach, axis=1, mode="constant", origin=(reach - 1) // 2)
    )


def _directions(rng: np.random.Generator, ground: Ground, count: int) -> NDArray[np.float64]:
    """Directions (count,) along or across the buildings of the ground, radians; else any."""
    angles = [math.radians(thing["angle_deg"]) for thing in ground.objects if "angle_deg" in thing]
    if not angles:
        return rng.uniform(0, math.pi, count)
    return rng.choice(angles, count) + math.pi / 2 * rng.integers(0, 2, count)


def _turned(
    angle: NDArray[np.float64], along: NDArray[np.float64], across: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rows and columns (N, 2) of positions in the frame of an object, whose angle is from range."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([along * s + across * c, along * c - across * s], axis=1)


def _add(
    energy: NDArray[np.float64],
    bodies: Points,
    ground: Ground,
    lit: NDArray[np.float64],
    cotangent: float,
) -> None:
    """Add cross section over pixel area where bodies appear; heights are shares of the canopy."""
    rows, cols = energy.shape
    row, col = np.floor(bodies.row).astype(np.intp), np.floor(bodies.col).astype(np.intp)
    inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
    row, col = row[inside], col[inside]
    pixel = ground.grid.pixel_m
    power = bodies.rcs_m2[inside] / pixel**2 * lit[row, col]
    height = bodies.height_m[inside] * ground.canopy[row, col]
    col = np.floor(bodies.col[inside] - height * cotangent / pixel).astype(np.intp)
    seen = (col >= 0) & (col < cols)
    np.add.at(energy, (row[seen], col[seen]), power[seen])
