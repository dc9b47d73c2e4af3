"""Two views of one ground: scenes in memory with a place on the Earth, a date and a band."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyproj
from array_scenes import LAMBERT93, ArrayArchive, array_reader

from sarhpc.archive.scene import Scene
from sarhpc.tiling.config import CrossBandConfig, SplitConfig, TileConfig
from sarhpc.tiling.orientation import compose, transform
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

MIDDLE = (700_200.0, 6_250_100.0)
SIDE = (140, 140)
TARGET = np.add(MIDDLE, (3.3, -5.9))
TRAIN = SplitConfig(fractions=[1.0, 0.0, 0.0])


def looking(spacing, shape, *, turn=0.0, mirrored=False, shift=(0.0, 0.0), middle=MIDDLE):
    """Affine of an image (rows, cols) around `middle`, turned anticlockwise by `turn` degrees."""
    row_m, col_m = (spacing, spacing) if np.isscalar(spacing) else spacing
    angle = np.radians(turn)
    about = (np.cos(angle), -np.sin(angle), middle[0] + shift[0])
    about += (np.sin(angle), np.cos(angle), middle[1] + shift[1])
    up = row_m if mirrored else -row_m
    pixels = (col_m, 0.0, -col_m * shape[1] / 2, 0.0, up, -up * shape[0] / 2)
    return compose(about, pixels)


def centres(affine, shape):
    """Map coordinates (H, W, 2) of pixel centres."""
    col, row = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    return transform(affine, np.stack([col, row], axis=-1))


def blob(points, at, sigma_m, floor=0.01):
    """Intensity of a dark ground with one bright patch at map position `at`."""
    return floor + 50 * np.exp(-((points - at) ** 2).sum(axis=-1) / (2 * sigma_m**2))


@dataclass
class View:
    """One scene: amplitude (H, W) as stored, where it lies, and what is known of it."""

    amplitude: np.ndarray
    affine: tuple
    spacing: Any
    crs: str = LAMBERT93
    band: str = "X"
    polarization: str = "HH"
    datetime: str | None = "2024-05-01T10:00:00Z"
    header: dict = field(default_factory=dict)

    def reader(self):
        more = {"affine": self.affine, "crs": self.crs, **self.header}
        return array_reader(self.amplitude, self.spacing, **more)

    def scene(self, name):
        rows, cols = self.amplitude.shape
        corners = np.array([(0, 0), (cols, 0), (cols, rows), (0, rows)], float)
        points = transform(self.affine, corners)
        to_degrees = pyproj.Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        lon, lat = to_degrees.transform(*points.T)
        properties = {
            "sar:frequency_band": self.band,
            "sar:polarizations": [self.polarization],
            "datetime": self.datetime,
        }
        return Scene(name, {}, properties, (min(lon), min(lat), max(lon), max(lat)))


def archive_of(**views):
    """An archive of `views` by scene id."""
    readers = {name: view.reader for name, view in views.items()}
    return ArrayArchive(readers, {name: view.scene(name) for name, view in views.items()})


def asking(tile_px=128, *, other=None, **more):
    """A configuration that asks for band L under tiles of 0.35 m."""
    known = {"split": TRAIN, "conditions": ["other"], "block_tiles": 1, **more}
    return TileConfig(tile_px=tile_px, other=other or CrossBandConfig(band="L"), **known)


def planned(archive, cfg, tiled=("a",)):
    """The plan of the scenes named, with all of the archive offered as partners."""
    scenes = list(archive.search(ids=frozenset(tiled)))
    return plan_scenes(scenes, cfg, opener=archive.open, offered=archive.search())


def tiles_of(archive, cfg, tiled=("a",)):
    """Samples of all shards, and what was rejected."""
    samples, rejected = [], {}
    for number, inputs in enumerate(planned(archive, cfg, tiled).shards):
        shard = tile_shard(number, inputs, archive, cfg, opener=archive.open)
        samples += shard.samples
        rejected |= shard.rejected
    return samples, rejected


def tiled_view(**more):
    affine = looking(0.35, SIDE, turn=12)
    power = blob(centres(affine, SIDE), TARGET, 1.2)
    return View(np.sqrt(power).astype(np.float32), affine, 0.35, **more)


def partner_view(spacing, shape, *, sigma_m=1.2, crs=LAMBERT93, header=None, **more):
    """The same ground from elsewhere, each pixel the intensity at its centre."""
    placed = {name: more.pop(name) for name in ("turn", "mirrored", "shift") if name in more}
    middle, target = MIDDLE, TARGET
    if crs != LAMBERT93:
        there = pyproj.Transformer.from_crs(LAMBERT93, crs, always_xy=True)
        middle, target = there.transform(*MIDDLE), np.array(there.transform(*TARGET))
    affine = looking(spacing, shape, middle=middle, **placed)
    amplitude = np.sqrt(blob(centres(affine, shape), target, sigma_m)).astype(np.float32)
    known = {"band": "L", "crs": crs, "header": header or {}, **more}
    return View(amplitude, affine, spacing, **known)
