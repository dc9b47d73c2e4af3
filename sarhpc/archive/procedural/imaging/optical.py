"""The optical image: class colours, parcel tones, texture, sun, and cast shadows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.procedural.config import FOREST, LABELS, URBAN, WATER
from sarhpc.archive.procedural.landscape.ground import Ground
from sarhpc.archive.procedural.noise import Field, smooth_noise

_COLOURS = {
    "nodata": ((0, 0, 0), (0, 0, 0)),
    "water": ((38, 62, 66), (52, 78, 74)),
    "road": ((128, 126, 124), (142, 139, 134)),
    "bare": ((150, 118, 88), (188, 164, 132)),
    "grass": ((98, 116, 66), (138, 142, 86)),
    "crop": ((94, 124, 58), (190, 174, 104)),
    "shrub": ((124, 122, 78), (148, 134, 96)),
    "forest": ((44, 66, 36), (78, 98, 52)),
    "urban": ((176, 104, 76), (186, 180, 172)),
}
"""Colour of each class at tone -1 and +1 (sRGB), as summer orthophotos of the Midi show them."""


@dataclass(frozen=True)
class Sun:
    """Position of the sun: azimuth clockwise from north and elevation, degrees."""

    azimuth_deg: float
    elevation_deg: float


def photograph(
    rng: np.random.Generator, ground: Ground, sun: Sun, heading_deg: float
) -> NDArray[np.uint8]:
    """Optical image (H, W, 3) of the working grid, in the frame of the radar image.

    `heading_deg` is the flight direction, opposite to the rows: it rotates the sun into that frame.
    """
    shape = ground.grid.shape
    surface = ground.terrain + np.maximum(ground.canopy, ground.roof)
    leaves = smooth_noise(rng, shape, 0.6 / ground.grid.pixel_m)
    surface = surface + np.where(ground.label == FOREST, np.float32(0.3) * leaves, 0)
    light = _light(surface, ground.grid.pixel_m, sun, heading_deg)
    grain = _grain(rng, ground)
    low = np.array([_COLOURS[name][0] for name in LABELS], dtype=np.float32)
    high = np.array([_COLOURS[name][1] for name in LABELS], dtype=np.float32)
    mix = np.clip((ground.tone + 1) / 2 + 0.16 * smooth_noise(rng, shape, 9.0), 0, 1)
    out = np.empty((*shape, 3), dtype=np.uint8)
    haze = np.float32(6.0)
    sky = (0.86, 0.93, 1.12)
    sunlit = (1.03, 1.0, 0.95)
    for band in range(3):
        colour = low[ground.label, band] * (1 - mix) + high[ground.label, band] * mix
        shade = np.float32(0.34 * sky[band]) + np.float32(0.70 * sunlit[band]) * light
        value = colour * shade * (1 + grain) + haze
        out[..., band] = np.clip(value, 0, 255)
    return out


def _grain(rng: np.random.Generator, ground: Ground) -> Field:
    """Relative brightness texture (H, W): fine on grass, coarse in crops, quiet on water."""
    shape, pixel = ground.grid.shape, ground.grid.pixel_m
    fine = rng.standard_normal(shape, dtype=np.float32)
    patch = smooth_noise(rng, shape, 1.2 / pixel)
    broad = smooth_noise(rng, shape, 12.0 / pixel)
    amount = np.full(len(LABELS), 1.0, dtype=np.float32)
    amount[WATER], amount[URBAN], amount[FOREST] = 0.25, 0.55, 1.2
    texture = np.float32(0.035) * fine + np.float32(0.045) * patch + np.float32(0.04) * broad
    # Rows and tramlines show in both images: the ripple of backscatter darkens the furrow.
    furrow = np.where(ground.label == FOREST, 0.0, 0.03 * np.clip(ground.level_db, -3, 3))
    return texture * amount[ground.label] + furrow.astype(np.float32)


def _light(surface: Field, pixel_m: float, sun: Sun, heading_deg: float) -> Field:
    """Direct sunlight on the surface (H, W), 1 on flat open ground, 0 in cast shadow."""
    elevation = math.radians(sun.elevation_deg)
    # Rows run against the heading, columns to its right.
    off = math.radians(sun.azimuth_deg - heading_deg)
    along_rows, along_cols = -math.cos(off), math.sin(off)
    slope_rows, slope_cols = np.gradient(surface, np.float32(pixel_m))
    facing = math.sin(elevation) - math.cos(elevation) * (
        np.float32(along_rows) * slope_rows + np.float32(along_cols) * slope_cols
    )
    length = np.sqrt(1 + slope_rows**2 + slope_cols**2)
    direct = np.clip(facing / length / math.sin(elevation), 0, 1.5)
    hidden = cast_shadow(surface, pixel_m, elevation, (along_rows, along_cols))
    return (direct * (1 - hidden)).astype(np.float32)


def cast_shadow(
    surface: Field, pixel_m: float, elevation: float, towards_sun: tuple[float, float]
) -> Field:
    """How deep the surface lies in cast shadow (H, W), 0 in the sun to 1.

    The horizon towards the sun is found by doubling: after k steps each pixel knows the highest
    ray among its 2^k neighbours, so a shadow of n pixels costs log2(n) shifted maxima.
    """
    drop = math.tan(elevation) * pixel_m
    reach = 32.0 / drop
    ray = surface.copy()
    step = 1.0
    while step <= reach:
        dr, dc = round(towards_sun[0] * step), round(towards_sun[1] * step)
        np.maximum(ray, _shifted(ray, dr, dc) - np.float32(drop * math.hypot(dr, dc)), out=ray)
        step *= 2
    return np.clip((ray - surface - np.float32(0.15)) / np.float32(0.4), 0, 1)


def _shifted(image: Field, rows: int, cols: int) -> Field:
    """`image` moved so that pixel (r, c) holds image[r + rows, c + cols]; borders stay."""
    h, w = image.shape
    r = np.clip(np.arange(h) + rows, 0, h - 1)
    c = np.clip(np.arange(w) + cols, 0, w - 1)
    return image[r[:, None], c[None, :]]
