"""Backscatter of each class at X band: sigma0, its angular law, and coherent reflectors.

The values are engineering values inside the ranges of the literature (Ulaby and Dobson 1989;
constant-gamma tables after Barton 1985, Long, Nathanson), not measurements of one site.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.procedural.config import LABELS

WAVELENGTH_M = 0.0312
"""X band, 9.6 GHz."""

SIGMA0_REFERENCE_DEG = 45.0


@dataclass(frozen=True)
class Scattering:
    """Backscatter of one class at X band, HH."""

    sigma0_db: float
    """Mean sigma0 at 45 degrees, dB."""
    spread_db: float
    """Standard deviation between parcels, dB."""
    nu: float
    """Shape of the K distribution's gamma texture; infinite = none."""
    power: float
    """Exponent p of sigma0 ~ cos^p(theta)."""


SCATTERING = {
    "nodata": Scattering(-60.0, 0.0, math.inf, 1.0),
    "water": Scattering(-26.0, 3.0, math.inf, 5.0),
    "road": Scattering(-21.0, 2.0, math.inf, 4.0),
    "bare": Scattering(-14.0, 2.5, 20.0, 2.6),
    "grass": Scattering(-13.0, 2.0, 20.0, 1.5),
    "crop": Scattering(-12.0, 2.5, 12.0, 1.6),
    "shrub": Scattering(-11.0, 2.0, 8.0, 1.5),
    "forest": Scattering(-9.5, 1.5, 4.0, 1.0),
    "urban": Scattering(-7.0, 4.0, 1.5, 1.0),
}
"""Scattering by class name."""


def table(attribute: str) -> NDArray[np.float32]:
    """One attribute of every class, indexed by label code."""
    return np.array([getattr(SCATTERING[name], attribute) for name in LABELS], dtype=np.float32)


def sigma0(name: str, incidence_deg: float) -> float:
    """Mean sigma0 (linear) of class `name` on flat ground at `incidence_deg`."""
    law = SCATTERING[name]
    ratio = math.cos(math.radians(incidence_deg)) / math.cos(math.radians(SIGMA0_REFERENCE_DEG))
    return float(10 ** (law.sigma0_db / 10) * ratio**law.power)


def trihedral_rcs(side_m: float) -> float:
    """Peak radar cross section of a triangular trihedral, 4 pi a^4 / (3 lambda^2), m^2."""
    return 4 * math.pi * side_m**4 / (3 * WAVELENGTH_M**2)


def dihedral_rcs(height_m: float, length_m: float) -> float:
    """Peak radar cross section of an ideal dihedral, 8 pi a^2 b^2 / lambda^2, m^2."""
    return 8 * math.pi * height_m**2 * length_m**2 / WAVELENGTH_M**2


FACADE_DB = -8.0
"""Diffuse return of a facade against a roof, dB: it mirrors the wave away or into the dihedral."""
WALL_LOSS_DB = -45.0
"""Loss of a real against an ideal dihedral by rough walls, gaps and rough ground, dB."""
WALL_LOBE_RAD = math.radians(11.0)
"""Angle off broadside at which the dihedral has lost a factor e."""
WALL_FLOOR_DB = -14.0
"""Return of a wall far off broadside, against broadside, dB."""


def dihedral_sigma0(height_m: float, off_broadside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sigma0 of the pixels along a wall base `off_broadside` radians from the azimuth axis.

    The ideal dihedral of a pixel's length over a square pixel's area, which the length leaves,
    less losses, weighted by exp(-(phi/phi0)^2) over a floor.
    """
    ideal = dihedral_rcs(height_m, 1.0) * 10 ** (WALL_LOSS_DB / 10)
    lobe = np.exp(-((off_broadside / WALL_LOBE_RAD) ** 2)) + 10 ** (WALL_FLOOR_DB / 10)
    return ideal * lobe
