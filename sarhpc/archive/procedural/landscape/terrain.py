"""The working grid of a scene and the terrain under it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.noise import Field, fractal_noise

TALLEST_M = 26.0
"""Height no object exceeds, metres; sets how far beyond the scene ground must be simulated."""

AZIMUTH_MARGIN = 16
"""Extra rows above and below: sidelobes die out before they wrap around."""


@dataclass(frozen=True)
class Grid:
    """Simulated pixels: the scene and the ground around it that casts shadow or layover into it."""

    size: int
    pixel_m: float
    near: int
    """Extra columns on the near-range side."""
    far: int
    """Extra columns on the far-range side."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns with margins."""
        return self.size + 2 * AZIMUTH_MARGIN, self.near + self.size + self.far

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the scene lies in the working grid."""
        return (
            slice(AZIMUTH_MARGIN, AZIMUTH_MARGIN + self.size),
            slice(self.near, self.near + self.size),
        )

    def metres(self) -> tuple[Field, Field]:
        """Range (1, W) and azimuth (H, 1) of pixel centres from the scene's first corner, m."""
        rows, cols = self.shape
        u = (np.arange(cols, dtype=np.float32) - self.near + 0.5) * np.float32(self.pixel_m)
        v = (np.arange(rows, dtype=np.float32) - AZIMUTH_MARGIN + 0.5) * np.float32(self.pixel_m)
        return u[None, :], v[:, None]


def working_grid(cfg: ProceduralConfig, incidence_deg: float) -> Grid:
    """Grid of a scene: near margin holds the longest shadow, far margin the longest layover."""
    tangent = math.tan(math.radians(incidence_deg))
    near = math.ceil(TALLEST_M * tangent / cfg.pixel_m) + 8
    far = math.ceil(TALLEST_M / tangent / cfg.pixel_m) + 8
    return Grid(cfg.size_px, cfg.pixel_m, near, far)


def terrain_height(rng: np.random.Generator, grid: Grid, relief_m: float) -> Field:
    """Terrain height (H, W) in metres, zero mean: power spectrum f^-5 and a gentle tilt."""
    step = max(1, round(3.0 / grid.pixel_m))
    tilt = rng.uniform(-0.03, 0.03, 2)
    relief = fractal_noise(rng, grid.shape, 5.0, step) * np.float32(relief_m)
    u, v = grid.metres()
    middle = np.float32(grid.size * grid.pixel_m / 2)
    plane = np.float32(tilt[0]) * (u - middle) + np.float32(tilt[1]) * (v - middle)
    share = np.float32(min(1.0, relief_m / 4.0))
    return (relief + share * plane).astype(np.float32)
