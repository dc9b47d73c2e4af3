"""Optical images for existing tiles: selected by place, time and clouds, and mosaicked."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.ancillary.label_map import read_label
from sarhpc.archive.ancillary.optical_images import OpticalImage, OpticalIndex
from sarhpc.archive.ancillary.optical_resampling import read_optical
from sarhpc.archive.ancillary.terrain_shift import ground_shift, read_height
from sarhpc.archive.scene import Affine6
from sarhpc.shards.images import encode_rgb8
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.tiling.config import OpticalConfig
from sarhpc.tiling.pairs.scene_assets import gap_days
from sarhpc.tiling.read_errors import DamagedError, classify_read_errors

log = logging.getLogger(__name__)

NOTE = "optic.json"
"""Member beside `optic.png`: metadata that it adds to the tile."""


@dataclass(frozen=True)
class PairedShard:
    """Optical images of a shard's tiles, generated lazily, and counts of tiles without one."""

    samples: Iterator[Sample]
    """Key of the tile, `optic.png` (H, W, 3) and `optic.json`."""
    missing: Counter[str] = field(default_factory=Counter)
    """Reason -> number of tiles; filled while `samples` is consumed."""


def pair_tiles(
    tiles: Iterable[tuple[str, Mapping[str, Any], tuple[int, int]]],
    index: OpticalIndex,
    cfg: OpticalConfig,
) -> PairedShard:
    """The optical image of each tile that has one.

    Reasons for none: `no_position` (the tile has no CRS), `no_image`, `too_far_in_time`, `cloudy`,
    `not_covered`, `no_height` (or incidence, with `cfg.dem`).

    Args:
        tiles: key, metadata and shape (H, W) of each tile, in key order.
        index: the images to choose from.
        cfg: the limits.
    """
    shard = PairedShard(iter(()))
    return PairedShard(_paired(tiles, index, cfg, shard.missing), shard.missing)


def with_optical(tile: Sample, paired: Sample | None) -> Sample:
    """The tile with its optical image and the metadata of it; unchanged without one."""
    if paired is None:
        return tile
    note = json.loads(paired.members[NOTE])
    meta = encode_json({**tile.meta, **note})
    return tile.with_members(optic__png=paired.members["optic.png"], meta__json=meta)


def _paired(
    tiles: Iterable[tuple[str, Mapping[str, Any], tuple[int, int]]],
    index: OpticalIndex,
    cfg: OpticalConfig,
    missing: Counter[str],
) -> Iterator[Sample]:
    for key, meta, shape in tiles:
        found = _pair(meta, shape, index, cfg)
        if isinstance(found, str):
            missing[found] += 1
        else:
            rgb, note = found
            yield Sample(key, {"optic.png": encode_rgb8(rgb), NOTE: encode_json(note)})


def _pair(
    meta: Mapping[str, Any], shape: tuple[int, int], index: OpticalIndex, cfg: OpticalConfig
) -> tuple[NDArray[np.uint8], dict[str, Any]] | str:
    """The picture (H, W, 3) of one tile and its note, or the reason why there is none."""
    if not meta.get("crs") or not meta.get("footprint") or not meta.get("affine"):
        return "no_position"
    lon, lat = np.asarray(meta["footprint"], np.float64).T
    touching = index.touching((lon.min(), lat.min(), lon.max(), lat.max()))
    if not touching:
        return "no_image"
    timely = _by_time(touching, meta.get("datetime"), cfg.max_delta_days)
    if not timely:
        return "too_far_in_time"
    a, b, c, d, e, f = meta["affine"]
    place = _Place((a, b, c, d, e, f), meta["crs"], shape)
    shift = _terrain_shift(meta, place, cfg) if cfg.dem else None
    if isinstance(shift, str):
        return shift
    return _Mosaic(place, shift, cfg).of(timely)


def _by_time(
    images: Iterable[OpticalImage], radar: str | None, limit: float | None
) -> list[tuple[float | None, OpticalImage]]:
    """Images with their gap in days, nearest first, unknown times last."""
    gaps = [(gap_days(radar, image.datetime), image) for image in images]
    if limit is not None:
        gaps = [(gap, image) for gap, image in gaps if gap is not None and gap <= limit]
    return sorted(gaps, key=lambda pair: (pair[0] is None, pair[0] or 0.0, pair[1].id))


@dataclass(frozen=True)
class _Place:
    affine: Affine6
    crs: str
    shape: tuple[int, int]


def _terrain_shift(
    meta: Mapping[str, Any], place: _Place, cfg: OpticalConfig
) -> NDArray[np.float64] | str:
    with classify_read_errors(str(cfg.dem)):
        height = read_height(Path(str(cfg.dem)), place.affine, place.crs, place.shape)
    if meta.get("incidence_deg") is None or not np.isfinite(height).all():
        return "no_height"
    reference = cfg.reference_height_m
    known = float(height.mean()) if reference is None else reference
    return ground_shift(height, known, meta["incidence_deg"], meta["pixel_m"])


@dataclass
class _Mosaic:
    """The mosaic of one tile under construction."""

    place: _Place
    shift: NDArray[np.float64] | None
    cfg: OpticalConfig
    cloudy: bool = False

    def of(
        self, images: Iterable[tuple[float | None, OpticalImage]]
    ) -> tuple[NDArray[np.uint8], dict[str, Any]] | str:
        """The mosaic of `images`, each filling the gaps of those before it, and its note."""
        rgb = np.zeros((*self.place.shape, 3), np.uint8)
        filled = np.zeros(self.place.shape, bool)
        used: list[dict[str, Any]] = []
        for gap, image in images:
            part = self._part(image)
            if part is None:
                continue
            picture, covered, cloud = part
            new = covered & ~filled
            if not new.any():
                continue
            rgb[new], filled = picture[new], filled | new
            used.append(
                {
                    "id": image.id,
                    "datetime": image.datetime,
                    "delta_days": gap,
                    "share": round(float(new.mean()), 4),
                    "cloud": cloud,
                }
            )
            if filled.all():
                break
        if filled.mean() < self.cfg.min_coverage:
            return "cloudy" if self.cloudy else "not_covered"
        return rgb, _note(used, self.shift is not None)

    def _part(
        self, image: OpticalImage
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], float | None] | None:
        """Picture, coverage and cloud share of one image over the tile; None if unusable."""
        affine, crs, shape = self.place.affine, self.place.crs, self.place.shape
        try:
            with classify_read_errors(image.path):
                picture, covered = read_optical(
                    Path(image.path), affine, crs, shape, shift=self.shift
                )
                if not covered.any():
                    return None
                cloud = self._cloud(image, covered)
        except DamagedError as error:
            log.warning("optical=%s left out: %s", image.id, error)
            return None
        if cloud is not None and cloud > self.cfg.max_cloud:
            self.cloudy = True
            return None
        return picture, covered, cloud

    def _cloud(self, image: OpticalImage, covered: NDArray[np.bool_]) -> float | None:
        if image.cloud is None:
            percent = image.cloud_percent
            return None if percent is None else round(percent / 100, 4)
        codes, known = read_label(
            Path(image.cloud), self.place.affine, self.place.crs, self.place.shape
        )
        clouds = np.isin(codes, self.cfg.cloud_codes) if self.cfg.cloud_codes else known
        return round(float(clouds[covered].mean()), 4)


def _note(used: list[dict[str, Any]], warped: bool) -> dict[str, Any]:
    """Metadata of the mosaic: dates of the largest part, and every image with its share."""
    main = max(used, key=lambda part: part["share"])
    return {
        "optic_datetime": main["datetime"],
        "optic_delta_days": main["delta_days"],
        "optic_images": used,
        "optic_on_terrain": warped,
    }
