"""Layers of the ground of a scene, and the list of its objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.procedural.config import GRASS
from sarhpc.archive.procedural.landscape.terrain import Grid
from sarhpc.archive.procedural.noise import Field


@dataclass(frozen=True)
class Points:
    """Point scatterers: position in the grid, height and radar cross section."""

    row: NDArray[np.float64]
    col: NDArray[np.float64]
    height_m: NDArray[np.float64]
    rcs_m2: NDArray[np.float64]

    @classmethod
    def none(cls) -> Points:
        """No points."""
        return cls(*(np.zeros(0) for _ in range(4)))

    @classmethod
    def joined(cls, parts: list[Points]) -> Points:
        """All points of `parts`, in order."""
        if not parts:
            return cls.none()
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("row", "col", "height_m", "rcs_m2")
            )
        )


@dataclass
class Ground:
    """Layers of the ground, each (H, W) on the working grid."""

    grid: Grid
    terrain: Field
    """Terrain height, metres."""
    label: NDArray[np.uint8]
    """Land-cover code."""
    canopy: Field
    """Height of vegetation over the terrain, metres."""
    roof: Field
    """Height of buildings over the terrain, metres."""
    tone: Field
    """Parcel or roof tone, about -1 to 1: colours the optical image."""
    level_db: Field
    """Departure of backscatter from its class mean, dB."""
    wall: Field
    """sigma0 (linear) of the wall-ground dihedral whose base lies here."""
    way: NDArray[np.bool_]
    """Where a road or path runs."""
    points: list[Points] = field(default_factory=list)
    """Bright points of buildings and reflectors."""
    objects: list[dict[str, Any]] = field(default_factory=list)
    """Object list in scene pixels; every entry has `kind`."""

    @classmethod
    def bare(cls, grid: Grid, terrain: Field) -> Ground:
        """Grass and nothing else."""
        layers = [np.zeros(grid.shape, dtype=np.float32) for _ in range(5)]
        canopy, roof, tone, level, wall = layers
        label = np.full(grid.shape, GRASS, dtype=np.uint8)
        way = np.zeros(grid.shape, dtype=bool)
        return cls(grid, terrain, label, canopy, roof, tone, level, wall, way)

    def scene_pixels(self, u: float, v: float) -> tuple[float, float]:
        """Row and column in scene pixels of a position in metres, rounded to a tenth."""
        return round(v / self.grid.pixel_m, 1), round(u / self.grid.pixel_m, 1)
