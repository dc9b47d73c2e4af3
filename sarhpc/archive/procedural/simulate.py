"""Simulation of one scene: the ground as imaged by the radar and by a camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.procedural.backscatter import SIGMA0_REFERENCE_DEG, table
from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.flight import Pass, acquisition, scene_ids
from sarhpc.archive.procedural.imaging.geometry import Map, View, project
from sarhpc.archive.procedural.imaging.optical import Sun, photograph
from sarhpc.archive.procedural.imaging.radiometry import Radiance, radiance
from sarhpc.archive.procedural.imaging.texture import class_texture
from sarhpc.archive.procedural.landscape.compose import compose_ground
from sarhpc.archive.procedural.landscape.ground import Ground
from sarhpc.archive.procedural.landscape.terrain import Grid, working_grid
from sarhpc.archive.procedural.noise import Field
from sarhpc.imaging.focusing import (
    Complex,
    add_points,
    circular_gaussian,
    impulse_response,
)
from sarhpc.imaging.streams import stream

__all__ = ["ProceduralScene", "scene_ids", "simulate_scene"]

Layer = TypeVar("Layer", bound=NDArray[Any])

SUN = Sun(azimuth_deg=150.0, elevation_deg=52.0)
"""Summer, late morning (10:30 UTC) at 44 degrees north."""


@dataclass(frozen=True)
class ProceduralScene:
    """One scene with its ground truth; arrays are (H, W) in the image frame, near range left."""

    scene_id: str
    flight: Pass
    sar: NDArray[np.complex64] | NDArray[np.float32]
    """Calibrated image: |s|^2 = sigma0. Complex for one look, amplitude for several."""
    optical: NDArray[np.uint8] | None
    """Orthophoto (H, W, 3) in the frame of the radar image."""
    label: NDArray[np.uint8]
    height: Field
    """Height of objects over the terrain, metres."""
    terrain: Field
    """Terrain height, metres."""
    shadow: NDArray[np.bool_]
    layover: NDArray[np.bool_]
    incidence: Field
    """Incidence angle on flat ground, degrees."""
    sigma0: Field
    """Noise-free mean backscatter the speckle was drawn on, linear, without point targets."""
    objects: tuple[dict[str, Any], ...]


def simulate_scene(cfg: ProceduralConfig, scene_id: str) -> ProceduralScene:
    """Simulate one scene of the archive; it depends only on configuration and id."""
    flight = acquisition(cfg, scene_id)
    grid = working_grid(cfg, flight.incidence_deg)
    view = View.over(grid, flight.incidence_deg, cfg.altitude_m)
    ground = compose_ground(cfg, flight.ground_id, flight.kind, grid)
    sigma0 = mean_sigma0(cfg, flight.ground_id, ground, view)
    projection = project(ground, view, sigma0)
    source = radiance(cfg, flight.ground_id, ground, view, sigma0, projection)
    sar = focus(cfg, scene_id, grid, source)
    optical = _optical(cfg, flight, ground) if cfg.optical else None
    incidence = np.degrees(view.incidence(grid)).astype(np.float32)[grid.inside[1]]
    return ProceduralScene(
        scene_id,
        flight,
        _cut(grid, sar),
        optical,
        _cut(grid, ground.label),
        _cut(grid, np.maximum(ground.canopy, ground.roof)),
        _cut(grid, ground.terrain),
        _cut(grid, projection.shadow),
        _cut(grid, projection.layover),
        np.broadcast_to(incidence, (grid.size, grid.size)),
        _cut(grid, source.power).astype(np.float32),
        tuple(ground.objects),
    )


def _cut(grid: Grid, layer: Layer) -> Layer:
    """The scene's part of a layer of the working grid."""
    return layer[grid.inside].copy()  # type: ignore[return-value]


def mean_sigma0(cfg: ProceduralConfig, ground_id: str, ground: Ground, view: View) -> Map:
    """Backscatter of each pixel's ground (H, W) at its flat incidence, with texture, linear."""
    cosine = np.cos(view.incidence(ground.grid)) / math.cos(math.radians(SIGMA0_REFERENCE_DEG))
    law = 10 * np.log10(cosine)[None, :] * table("power")[:, None]
    level = (table("sigma0_db")[:, None] + law).astype(np.float32)
    columns = np.arange(ground.grid.shape[1])[None, :]
    decibel = level[ground.label, columns]
    if cfg.texture:
        decibel += ground.level_db
    linear = np.exp(decibel * np.float32(math.log(10) / 10))
    if cfg.texture:
        rng = stream(cfg.seed, ground_id, "texture")
        linear *= class_texture(rng, ground.label, ground.grid.pixel_m, cfg.radiometry)
    return linear.astype(np.float64)


def focus(cfg: ProceduralConfig, scene_id: str, grid: Grid, source: Radiance) -> Complex | Field:
    """Focused image (H, W) on the working grid: complex, or amplitude of `cfg.looks` looks."""
    looks = [_look(cfg, scene_id, grid, source, n) for n in range(cfg.looks)]
    if len(looks) == 1:
        return looks[0]
    intensity = np.mean([np.abs(look) ** 2 for look in looks], axis=0)
    return np.sqrt(intensity).astype(np.float32)


def _look(
    cfg: ProceduralConfig, scene_id: str, grid: Grid, source: Radiance, number: int
) -> Complex:
    """One look: speckle over mean power, points, additive noise, all through one response."""
    speckle = circular_gaussian(stream(cfg.seed, scene_id, f"speckle/{number}"), grid.shape)
    field = speckle * np.sqrt(source.power).astype(np.float32)
    points = source.points
    phase = stream(cfg.seed, scene_id, f"phase/{number}").uniform(0, 2 * math.pi, points.row.size)
    add_points(field, points.row, points.col, points.rcs_m2, phase, grid.pixel_m**2)
    if cfg.ambiguity_db is not None:
        shift = round(cfg.ambiguity_shift_m / grid.pixel_m)
        ghost = np.roll(field, shift, axis=0) + np.roll(field, -shift, axis=0)
        field += np.float32(10 ** (cfg.ambiguity_db / 20)) * ghost
    noise = circular_gaussian(stream(cfg.seed, scene_id, f"noise/{number}"), grid.shape)
    field += source.noise * noise
    return impulse_response(field, cfg.band_fraction, cfg.sidelobe_db)


def _optical(cfg: ProceduralConfig, flight: Pass, ground: Ground) -> NDArray[np.uint8]:
    rng = stream(cfg.seed, flight.scene_id, "optical")
    image = photograph(rng, ground, SUN, flight.heading_deg)
    return _cut(ground.grid, image)
