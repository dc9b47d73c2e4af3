"""Imaging geometry: visibility of the ground, and its position in slant and ground range.

A point antenna at height H flies along the rows, on the low-column side. Ground at range X from
the track and height z has look angle psi = atan2(X, H - z) and slant range R = hypot(X, H - z);
the image shows it at ground range sqrt(R^2 - H^2), which for a distant antenna is the familiar
X - z cot(theta). Columns are laid out so that terrain stays in its own column (the image is
projected on the terrain model); what stands on the terrain is laid over towards the antenna.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from sarhpc.archive.procedural.backscatter import FACADE_DB, table
from sarhpc.archive.procedural.config import FOREST, URBAN, WATER
from sarhpc.archive.procedural.landscape.ground import Ground
from sarhpc.archive.procedural.landscape.terrain import Grid
from sarhpc.archive.procedural.noise import Field

Map = NDArray[np.float64]

CANOPY_EXTINCTION_M = 2.5
"""Depth below the top of a crown at which it has become e times as opaque, metres."""
THINNINGS = (0.29, 1.39)
"""Depths, in extinction lengths, of the opaque surfaces that stand for a porous crown: the
quantiles 1/4 and 3/4 of the exponential law."""
CANOPY_FUZZ_M = 1.0
"""Distance over which twigs before a crown's front fade out, metres along the ray. Together with
the extinction it sets how gradually woods appear in range: the skewness of their range steps has
the sign that layover and shadow give to buildings. An engineering value."""
TREE_M = 2.5
"""Vegetation below this height is opaque."""
SHADOW_COVER = 0.2
"""A pixel less covered by visible ground than this lies in shadow."""
LAYOVER_COVER = 1.6
"""A pixel covered more than this many times lies in layover."""


@dataclass(frozen=True)
class View:
    """The antenna over a scene: `altitude_m` above it, `near_m` from its first column."""

    altitude_m: float
    near_m: float

    @classmethod
    def over(cls, grid: Grid, incidence_deg: float, altitude_m: float) -> View:
        """View with `incidence_deg` at the middle of the scene."""
        middle = altitude_m * math.tan(math.radians(incidence_deg))
        return cls(altitude_m, middle - grid.size * grid.pixel_m / 2)

    def incidence(self, grid: Grid) -> Map:
        """Incidence angle on flat ground (W,) in radians, per column of the working grid."""
        u, _ = grid.metres()
        return np.arctan2(self.near_m + u[0].astype(np.float64), self.altitude_m)


@dataclass(frozen=True)
class Projection:
    """Power and coverage of the ground in the image frame, (H, W) on the working grid."""

    power: Map
    """Mean backscattered power as sigma0, linear."""
    cover: Map
    """How often each pixel is covered by visible ground: 1 on flat land, 0 in shadow."""
    lit: Map
    """Share of each pixel of the ground (not of the image) that the antenna sees."""

    @property
    def shadow(self) -> NDArray[np.bool_]:
        """Pixels with (nearly) no visible ground."""
        return self.cover < SHADOW_COVER

    @property
    def layover(self) -> NDArray[np.bool_]:
        """Pixels where several places of the ground fall together."""
        return self.cover > LAYOVER_COVER


@dataclass(frozen=True)
class Nodes:
    """The surface at pixel borders: look angle, slant range and image column, each (H, W)."""

    psi: Map
    slant: Map
    column: Map


def surface_nodes(grid: Grid, view: View, terrain: Map, height: Map) -> Nodes:
    """Nodes of the surface `terrain + height`; terrain alone stays in its own column."""
    edges = view.near_m + (np.arange(grid.shape[1]) - grid.near) * grid.pixel_m
    # Ground range of the terrain such that its image is the column's own: R^2 = edge^2 + H^2.
    h = view.altitude_m
    x = np.sqrt(np.maximum(edges**2 + h**2 - (h - terrain) ** 2, 1.0))
    above = h - terrain - height
    slant = np.hypot(x, above)
    image = np.sqrt(np.maximum(slant**2 - h**2, 0.0))
    column = (image - view.near_m) / grid.pixel_m + grid.near
    return Nodes(np.arctan2(x, above), slant, column)


def project(ground: Ground, view: View, sigma0: Map) -> Projection:
    """Image the ground: `sigma0` (H, W) is each pixel's backscatter at its flat incidence.

    Every facet between neighbouring nodes returns gamma(theta_l) times the area it shows to the
    antenna, R dpsi dy, as far as nothing nearer hides it, spread evenly over the columns it spans:
    the power of the image is that of the visible ground whatever the relief.

    Crowns let part of the wave through, exp(-depth / extinction): the image is the mean over
    opaque crowns thinned to several depths, each of which keeps the power.
    """
    trees = ground.canopy >= TREE_M
    depths = THINNINGS if trees.any() else (0.0,)
    views = []
    for depth in depths:
        cut = np.float32(depth * CANOPY_EXTINCTION_M)
        thinned = np.maximum(ground.canopy - cut, np.float32(0.15) * ground.canopy)
        views.append(_project_opaque(ground, np.where(trees, thinned, ground.canopy), view, sigma0))
    return Projection(*(sum(layers) / len(depths) for layers in zip(*views, strict=True)))


def _project_opaque(ground: Ground, canopy: Field, view: View, sigma0: Map) -> tuple[Map, Map, Map]:
    """Power, coverage and lit ground with `canopy` (H, W) as an opaque surface."""
    # Both borders of a roof stand at its full height: walls belong to the pixels beside it.
    roof = ground.roof.copy()
    np.maximum(roof[:, 1:], ground.roof[:, :-1], out=roof[:, 1:])
    height = np.maximum(roof, canopy).astype(np.float64)
    nodes = surface_nodes(ground.grid, view, ground.terrain.astype(np.float64), height)
    facets, shown = _visible(nodes)
    label, wall = facet_labels(ground, canopy)
    flat = view.incidence(ground.grid)[None, :-1]
    own = np.where(label == ground.label[:, :-1], sigma0[:, :-1], sigma0[:, 1:])
    power = own * _slope_law(label, flat, nodes) * shown / (ground.grid.pixel_m * np.cos(flat))
    power[wall] *= 10 ** (FACADE_DB / 10)
    cover = np.abs(facets.stop - facets.start)
    # Water is level whatever the terrain model says beneath it.
    power = np.where(label == WATER, own * cover, power)
    power, cover = _image(facets, (power, cover), label == FOREST, ground, flat)
    return power, cover, (nodes.psi >= np.maximum.accumulate(nodes.psi, axis=1)).astype(np.float64)


def facet_labels(ground: Ground, canopy: Field) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Class of the facet that begins at each pixel (H, W - 1), and which facets are facades.

    A step up belongs to what stands behind it, building or wood.
    """
    label = ground.label[:, :-1].copy()
    behind = ground.label[:, 1:]
    facade = (np.diff(ground.roof, axis=1) > 1.5) & (behind == URBAN)
    label[facade] = URBAN
    label[(np.diff(canopy, axis=1) > 1.0) & (behind == FOREST)] = FOREST
    return label, facade


@dataclass(frozen=True)
class Facets:
    """Image columns (H, W) between which each facet of the ground appears, in either order."""

    start: Map
    stop: Map


def _visible(nodes: Nodes) -> tuple[Facets, Map]:
    """The lit part of each facet in image columns, and the aperture it fills (H, W - 1), metres.

    A facet is lit from where its look angle passes the largest look angle before it.
    """
    horizon = np.maximum.accumulate(nodes.psi, axis=1)
    lit = np.diff(horizon, axis=1)
    rise = np.diff(nodes.psi, axis=1)
    share = np.divide(lit, rise, out=np.zeros_like(lit), where=rise > 0)
    stop = nodes.column[:, 1:]
    start = stop - np.diff(nodes.column, axis=1) * share
    slant = (nodes.slant[:, 1:] + nodes.slant[:, :-1]) / 2
    return Facets(start, stop), lit * slant


def _slope_law(label: NDArray[np.uint8], flat: Map, nodes: Nodes) -> Map:
    """Gamma on the facet's own slope against gamma on flat ground: (cos ratio)^(p - 1)."""
    # cos(theta_l) is the aperture a facet shows over its length.
    slant = (nodes.slant[:, 1:] + nodes.slant[:, :-1]) / 2
    aperture = np.diff(nodes.psi, axis=1) * slant
    along = np.diff(nodes.slant, axis=1)
    cosine = np.clip(aperture / np.hypot(aperture, along), 0.02, 1.0)
    power = table("power")[label].astype(np.float64) - 1
    out = np.ones_like(cosine)
    steep = power > 0
    ratio = cosine / np.broadcast_to(np.cos(flat), cosine.shape)
    out[steep] = ratio[steep] ** power[steep]
    return out


def _image(
    facets: Facets, weights: tuple[Map, Map], crown: NDArray[np.bool_], ground: Ground, flat: Map
) -> tuple[Map, Map]:
    """Both weights accumulated into image columns; the front of crowns is drawn out in depth."""
    columns = ground.grid.shape[1]
    if not crown.any():
        first, second = spread(facets, weights, columns)
        return first, second
    trees = [np.where(crown, weight, 0.0) for weight in weights]
    rest = [np.where(crown, 0.0, weight) for weight in weights]
    parts = spread(facets, [*trees, *rest], columns)
    reach = CANOPY_FUZZ_M / math.sin(float(flat.mean())) / ground.grid.pixel_m
    decay = math.exp(-1 / reach)
    # The filter runs from far to near range: the crown begins before its envelope.
    drawn = [
        signal.lfilter([1 - decay], [1, -decay], part[:, ::-1], axis=1)[:, ::-1]
        for part in parts[:2]
    ]
    return drawn[0] + parts[2], drawn[1] + parts[3]


def spread(facets: Facets, weights: Sequence[Map], columns: int) -> list[Map]:
    """Sums (H, columns) of each of `weights` spread evenly over the columns of its facet.

    Exact: a uniform density is a step up and a step down, and a step inside a pixel is two
    entries of a running sum, so a facet costs four entries however long it is. Weight that falls
    outside the columns is dropped.
    """
    low, high = np.minimum(facets.start, facets.stop), np.maximum(facets.start, facets.stop)
    np.maximum(high, low + 1e-3, out=high)
    span = high - low
    rows = span.shape[0]
    width = columns + 3
    line = np.arange(rows)[:, None] * width
    edges = []
    for edge in (low, high):
        inside = np.clip(edge, 0.0, columns + 0.5)
        index = inside.astype(np.intp)
        edges.append(((line + index).ravel(), (inside - index).ravel()))
    sums = []
    for weight in weights:
        density = (weight / span).ravel()
        steps = np.zeros(rows * width)
        for (index, fraction), sign in zip(edges, (1.0, -1.0), strict=True):
            late = density * fraction
            steps += sign * np.bincount(index, density - late, rows * width)
            steps[1:] += sign * np.bincount(index, late, rows * width)[:-1]
        total = steps.reshape(rows, width).cumsum(axis=1)[:, :columns]
        sums.append(np.maximum(total, 0.0))
    return sums
