"""Incidence and ground spacing of a swath from the orbit (or track) of the platform.

Triangle of the Earth's centre of curvature, target and platform: with radius of curvature c,
heights h and z above the ellipsoid, and slant range R,
(c + h)^2 = (c + z)^2 + R^2 + 2 (c + z) R cos i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyproj import Transformer

from sarhpc.archive.formats.lookup_table import LookupTable
from sarhpc.archive.formats.nisar.hdf5 import Array, seconds_between, units, vector

_SEMI_MAJOR_M, _ECCENTRICITY_SQUARED = 6_378_137.0, 6.694_379_990_14e-3
_NODES = 33


@dataclass(frozen=True)
class PlatformPass:
    """The platform in the middle of an image, and the ground below it."""

    height_m: float
    """Above the ellipsoid."""
    speed_m_s: float
    curvature_m: float
    """Mean radius of curvature of the ellipsoid below the platform."""
    terrain_m: float
    """Height of the terrain above the ellipsoid."""

    def incidence(self, slant_m: Array) -> Array:
        """Incidence on the ellipsoid (n,) at slant ranges (n,), radians; NaN where they miss it."""
        near, far = self.curvature_m + self.terrain_m, self.curvature_m + self.height_m
        cosine = (far**2 - near**2 - slant_m**2) / (2 * near * slant_m)
        return np.arccos(np.where(np.abs(cosine) < 1, cosine, np.nan))

    def ground_speed(self, slant_m: float) -> float:
        """Speed of the beam over ground at a slant range, m/s."""
        near, far = self.curvature_m + self.terrain_m, self.curvature_m + self.height_m
        angle = float(self.incidence(np.array([slant_m]))[0])
        central = math.asin(min(slant_m * math.sin(angle) / far, 1.0))
        return self.speed_m_s * near / far * math.cos(central)

    def incidence_table(self, slant_m: Array, rows: int) -> LookupTable:
        """Incidence in degrees over an image of `rows` lines with samples at `slant_m`."""
        nodes = np.linspace(0, len(slant_m) - 1, min(_NODES, len(slant_m)))
        ranges = np.interp(nodes, np.arange(len(slant_m)), slant_m)
        angles = np.degrees(self.incidence(ranges))
        lines = np.array([0.0, float(rows)])
        return LookupTable(lines, (nodes + 0.5,) * 2, (angles,) * 2)


def platform_pass(orbit: Any, swath: Any, terrain_m: float) -> PlatformPass | None:
    """The pass of the platform at the middle of a swath; None where the file states no orbit.

    Args:
        orbit: group with `time`, `position` (n, 3) and `velocity` (n, 3), Earth-fixed.
        swath: group with `zeroDopplerTime`.
        terrain_m: height of the terrain above the ellipsoid.

    Raises:
        ValueError: the vectors do not match, or their times are not those of the swath.
    """
    if orbit is None or not {"time", "position", "velocity"} <= set(orbit):
        return None
    times, lines = vector(orbit, "time"), vector(swath, "zeroDopplerTime")
    states = [vector(orbit, name).reshape(-1, 3) for name in ("position", "velocity")]
    if len(times) < 2 or any(len(state) != len(times) for state in states):
        raise ValueError("orbit vectors that do not match their times")
    middle = float(lines.mean()) + seconds_between(
        units(orbit, "time"), units(swath, "zeroDopplerTime")
    )
    if not times[0] - 1 <= middle <= times[-1] + 1:
        raise ValueError("orbit vectors of another time than the swath")
    position, velocity = (
        np.array([np.interp(middle, times, axis) for axis in state.T]) for state in states
    )
    to_geodetic = Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True)
    _, latitude, height = to_geodetic.transform(*position)
    flattened = 1 - _ECCENTRICITY_SQUARED * math.sin(math.radians(latitude)) ** 2
    curvature = _SEMI_MAJOR_M * math.sqrt(1 - _ECCENTRICITY_SQUARED) / flattened
    return PlatformPass(float(height), float(np.linalg.norm(velocity)), curvature, terrain_m)
