"""Configuration of the procedural archive, and the names of its land-cover classes."""

from __future__ import annotations

from dataclasses import dataclass, field

LABELS = ("nodata", "water", "road", "bare", "grass", "crop", "shrub", "forest", "urban")
"""Class names by label code: code 0 is nodata, 8 is urban."""

NODATA, WATER, ROAD, BARE, GRASS, CROP, SHRUB, FOREST, URBAN = range(9)

SCENE_KINDS = ("water", "forest", "field", "town", "mixed")
"""Kinds of scene, by what dominates them."""


@dataclass
class KindWeights:
    """Relative weights of the kinds of scene; kinds are spread evenly over the archive."""

    water: float = 1.0
    """Scenes dominated by a lake."""
    forest: float = 1.0
    """Scenes dominated by woods."""
    field: float = 1.0
    """Scenes dominated by open land: crops, grass, bare soil, vineyards."""
    town: float = 1.0
    """Scenes dominated by buildings and streets."""
    mixed: float = 1.0
    """Scenes dominated by none."""


@dataclass
class ProceduralConfig:
    """Simulated scenes: number, ground and sensor."""

    seed: int = 0
    """Archive seed; together with a scene id it determines every byte of that scene."""
    scenes: int = 8
    """Number of scenes in the archive."""
    size_px: int = 512
    """Rows and columns of a scene, pixels."""
    pixel_m: float = 0.35
    """Ground spacing of rows and columns, metres."""
    scenes_per_line: int = 4
    """Scenes along one flight line; a line shares heading, date and campaign conditions."""
    reflown_fraction: float = 0.0
    """Share of flight lines that repeat the previous line on another date (0..1)."""
    scene_kinds: KindWeights = field(default_factory=KindWeights)
    """Relative weights of the kinds of scene."""
    flat_class: str | None = None
    """Class of flat, homogeneous scenes without texture or objects (calibration); None: varied."""
    altitude_m: float = 4500.0
    """Height of the antenna over the ground, metres; sets how fast incidence grows with range."""
    incidence_deg: float = 45.0
    """Incidence angle at scene centre, degrees; a flight line differs by `incidence_spread_deg`."""
    incidence_spread_deg: float = 0.0
    """Half width of the uniform spread of incidence between flight lines, degrees."""
    nesz_db: float = -28.0
    """Noise-equivalent sigma0, dB."""
    looks: int = 1
    """Independent looks averaged in intensity; 1 gives complex scenes, more give amplitude."""
    band_fraction: float = 0.8
    """Processed bandwidth as a fraction of the sampling frequency, both axes (0..1]."""
    sidelobe_db: float = 30.0
    """Peak sidelobe level of the Taylor weighting below the main lobe, dB."""
    radiometry: int = 1
    """Version of the radiometry: 1, or 2, which is held to measured images (docs/simulator.md).
    Ground, geometry and every layer but the radar image are the same."""
    texture: bool = True
    """Whether class backscatter fluctuates (K distribution) and varies between parcels."""
    relief_m: float = 4.0
    """Standard deviation of the terrain height, metres."""
    trihedrals: int = 0
    """Trihedral calibration reflectors of 0.5 m sides placed on open ground."""
    ambiguity_db: float | None = None
    """Level of the first azimuth ambiguity, dB (-25 is common); None = no ambiguity."""
    ambiguity_shift_m: float = 60.0
    """Distance of the azimuth ambiguity from its source, metres."""
    optical: bool = True
    """Whether scenes carry an optical image."""
