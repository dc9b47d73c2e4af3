"""What the image of a ground is made of: distributed power, points and noise, by version.

Version 1 is the mean power of the projected ground with gamma texture, walls and points, over
thermal noise. Version 2 keeps layout, projection and masks and adds what measured images show:

* texture by inverse gamma laws where clutter is extremely heterogeneous (`texture.py`);
* walls in fragments, and points of buildings whose cross sections spread over decades;
* discrete scatterers (`discretes.py`);
* the wave that crowns let through, scattered by what stands behind and beneath them;
* multiplicative noise: far sidelobes, ambiguities and quantisation return a share of the power of
  the surroundings, which fills shadows beside bright ground (Carrara, Goodman and Majewski,
  Spotlight Synthetic Aperture Radar, 1995).

Its values are engineering values tuned on GOTCHA; `docs/simulator.md` shows figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.imaging.discretes import NEPER_PER_DB, discrete_layers, log_normal
from sarhpc.archive.procedural.imaging.geometry import Map, Projection, View, surface_nodes
from sarhpc.archive.procedural.landscape.ground import Ground, Points
from sarhpc.archive.procedural.noise import Field, smooth_noise
from sarhpc.imaging.streams import stream

WALL_DB = -3.0
"""Median of the fragments of a wall's dihedral, against the wall of version 1, dB."""
WALL_SPREAD_DB = 6.0
"""Standard deviation of the fragments: windows, doors, cars and bushes before the wall, dB."""
WALL_FRAGMENT_M = 0.7
"""Scale of the fragments along a wall, metres."""
POINT_MEDIAN_M2 = 1.0
"""Median radar cross section of the points of a building, m^2."""
POINT_SPREAD_DB = 7.0
"""Standard deviation of their cross sections, dB: from edges to corner reflectors."""
CROWN_LOSS_DB = -20.0
"""Two-way loss through one crown: what is hidden by trees alone returns so much less, dB."""
MULTIPLICATIVE_NOISE_DB = -18.0
"""Multiplicative noise ratio: noise over the mean power of the surroundings, dB. The darkest parts
of GOTCHA lie 13 to 16 dB under its mean power, so that it cannot be much more."""
SURROUNDINGS_M = 50.0
"""Width of the surroundings whose mean power counts, falling off from their middle, metres."""


@dataclass(frozen=True)
class Radiance:
    """What one look of a scene is drawn on, on the working grid."""

    power: Map
    """Mean power of distributed scatterers as sigma0, (H, W)."""
    points: Points
    """Point scatterers, in image columns."""
    noise: Field | np.float32
    """Amplitude of additive noise, (H, W) or everywhere, sqrt(sigma0)."""


def radiance(
    cfg: ProceduralConfig,
    ground_id: str,
    ground: Ground,
    view: View,
    sigma0: Map,
    projection: Projection,
) -> Radiance:
    """Power, points and noise of a ground (H, W) by the version of `cfg.radiometry`.

    Args:
        cfg: the archive.
        ground_id: the ground, whose streams are drawn from.
        ground: its layers.
        view: the antenna.
        sigma0: backscatter of each pixel's ground at its flat incidence, linear.
        projection: that backscatter, imaged.
    """
    return _BY_VERSION[cfg.radiometry](cfg, ground_id, ground, view, sigma0, projection)


def _radiance_1(
    cfg: ProceduralConfig,
    ground_id: str,
    ground: Ground,
    view: View,
    sigma0: Map,
    projection: Projection,
) -> Radiance:
    # The base of a wall lies on the terrain, which stays in its own column.
    power = projection.power + projection.lit * ground.wall
    points = locate_points(Points.joined(ground.points), ground, view)
    return Radiance(power, points, np.float32(10 ** (cfg.nesz_db / 20)))


def _radiance_2(
    cfg: ProceduralConfig,
    ground_id: str,
    ground: Ground,
    view: View,
    sigma0: Map,
    projection: Projection,
) -> Radiance:
    wall = _fragments(stream(cfg.seed, ground_id, "walls/2"), ground)
    power = projection.power + projection.lit * wall
    power += through_crowns(ground, view, sigma0, projection.lit)
    if cfg.texture and cfg.flat_class is None:
        rng = stream(cfg.seed, ground_id, "discretes/2")
        incidence = float(view.incidence(ground.grid).mean())
        discretes = discrete_layers(rng, ground, projection.lit, incidence)
        power = np.where(discretes.hidden, 0.0, power) + discretes.power
    points = locate_points(_points(cfg, ground_id, ground), ground, view)
    surroundings = _surroundings(power, points, ground.grid.pixel_m)
    noise = 10 ** (cfg.nesz_db / 10) + 10 ** (MULTIPLICATIVE_NOISE_DB / 10) * surroundings
    return Radiance(power, points, np.sqrt(noise).astype(np.float32))


_BY_VERSION: dict[int, Callable[..., Radiance]] = {1: _radiance_1, 2: _radiance_2}


def locate_points(points: Points, ground: Ground, view: View) -> Points:
    """Point scatterers with `col` in the image: laid over towards the antenna by their height."""
    if points.row.size == 0:
        return points
    theta = view.incidence(ground.grid)
    column = np.clip(points.col.astype(np.intp), 0, theta.size - 1)
    shift = points.height_m / np.tan(theta[column]) / ground.grid.pixel_m
    return replace(points, col=points.col - shift)


def _fragments(rng: np.random.Generator, ground: Ground) -> Field:
    """sigma0 (H, W) of walls in fragments."""
    fading = smooth_noise(rng, ground.wall.shape, WALL_FRAGMENT_M / ground.grid.pixel_m)
    level = np.float32(WALL_DB) + np.float32(WALL_SPREAD_DB) * fading
    return ground.wall * np.exp(np.float32(NEPER_PER_DB) * level)


def _points(cfg: ProceduralConfig, ground_id: str, ground: Ground) -> Points:
    """The points of the ground with cross sections drawn anew; reflectors keep theirs."""
    # Reflectors are set last.
    built = len(ground.points) - (cfg.trihedrals > 0)
    points = Points.joined(ground.points[:built])
    rng = stream(cfg.seed, ground_id, "points/2")
    rcs = log_normal(rng, POINT_MEDIAN_M2, POINT_SPREAD_DB, points.row.size)
    return Points.joined([replace(points, rcs_m2=rcs), *ground.points[built:]])


def through_crowns(ground: Ground, view: View, sigma0: Map, lit: Map) -> Map:
    """Power (H, W) of ground and crowns that other crowns hide, and no building or terrain."""
    if not (ground.canopy > 0).any():
        return np.zeros(ground.grid.shape)
    nodes = surface_nodes(
        ground.grid, view, ground.terrain.astype(np.float64), ground.roof.astype(np.float64)
    )
    bare = (nodes.psi >= np.maximum.accumulate(nodes.psi, axis=1)).astype(np.float64)
    # A crown that is seen is laid over towards the antenna; what stands beneath it is not.
    hidden = np.clip(bare - lit * (ground.canopy == 0), 0.0, 1.0)
    return np.asarray(10 ** (CROWN_LOSS_DB / 10) * hidden * sigma0, np.float64)


def _surroundings(power: Map, points: Points, pixel_m: float) -> Map:
    """Mean power (H, W) of distributed and point scatterers over the surroundings."""
    total = power.copy()
    row, col = (np.floor(place).astype(np.intp) for place in (points.row, points.col))
    inside = (row >= 0) & (row < total.shape[0]) & (col >= 0) & (col < total.shape[1])
    np.add.at(total, (row[inside], col[inside]), points.rcs_m2[inside] / pixel_m**2)
    width = int(SURROUNDINGS_M / 2 / pixel_m) | 1
    for _ in range(2):
        total = ndimage.uniform_filter(total, width, mode="nearest")
    return total
