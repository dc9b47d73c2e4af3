"""Optical image and land cover of a scene, cut in the frame of its tiles."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.ancillary.label_map import read_label
from sarhpc.archive.ancillary.optical_resampling import read_optical
from sarhpc.archive.procedural.truth.captions import describe
from sarhpc.archive.scene import Scene
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.grid import SceneFrame
from sarhpc.tiling.orientation import Interval, Orientation
from sarhpc.tiling.read_errors import DamagedError, classify_read_errors

log = logging.getLogger(__name__)

_DAY_S = 86400.0


@dataclass(frozen=True)
class SceneAssets:
    """Files of a scene that its tiles are paired with, and the gap in time."""

    optical: Path | None
    label: Path | None
    optic_datetime: str | None
    optic_delta_days: float | None
    same_frame: bool = False
    """Whether an optical image without CRS lies in the scene's local frame."""
    objects: tuple[Mapping[str, Any], ...] | None = None
    """Objects of a procedural scene, whose tiles have a ground-truth caption; None otherwise."""


def scene_assets(scene: Scene, cfg: TileConfig) -> SceneAssets:
    """The assets of a scene; an optical image too far in time is left out."""
    properties = scene.properties
    when = properties.get("sarhpc:optical_datetime")
    gap = gap_days(scene.datetime, when)
    procedural = properties.get("sarhpc:procedural", False)
    return SceneAssets(
        optical=_timely_optical(scene, gap, cfg.max_optical_delta_days),
        label=scene.assets.get("label"),
        optic_datetime=when,
        optic_delta_days=gap,
        same_frame=properties.get("sarhpc:optical_frame") == "scene",
        objects=tuple(properties.get("sarhpc:objects", ())) if procedural else None,
    )


def _timely_optical(scene: Scene, gap: float | None, limit: float | None) -> Path | None:
    path = scene.assets.get("optical")
    if path is not None and limit is not None and (gap is None or gap > limit):
        known = "unknown" if gap is None else f"{gap:g}"
        log.info("scene=%s optical left out: gap of %s days, limit %g", scene.id, known, limit)
        return None
    return path


def gap_days(radar: str | None, optical: str | None) -> float | None:
    """Days between two RFC 3339 times, whichever is first; None where one is unknown."""
    if not radar or not optical:
        return None
    gap = _parse(radar) - _parse(optical)
    return round(abs(gap.total_seconds()) / _DAY_S, 4)


def _parse(time: str) -> datetime:
    parsed = datetime.fromisoformat(time)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def cut_optical(
    assets: SceneAssets, frame: SceneFrame, rows: Interval, cols: Interval, least: float
) -> NDArray[np.uint8] | None:
    """The optical image (H, W, 3) over output pixels; None where it covers less than `least`."""
    path = assets.optical
    if path is None:
        return None
    try:
        with classify_read_errors(str(path)):
            rgb, coverage = read_optical(
                path,
                frame.window_affine(rows, cols),
                frame.crs,
                (rows[1] - rows[0], cols[1] - cols[0]),
                same_frame=assets.same_frame,
            )
    except DamagedError as error:
        log.warning("optical=%s left out: %s", path, error)
        return None
    return rgb if coverage.mean() >= least else None


def cut_label(
    assets: SceneAssets, frame: SceneFrame, rows: Interval, cols: Interval
) -> NDArray[np.uint8] | None:
    """Land cover (2, H, W) = [label, valid] of output pixels; None where nothing is labelled."""
    path = assets.label
    if path is None:
        return None
    shape = (rows[1] - rows[0], cols[1] - cols[0])
    try:
        with classify_read_errors(str(path)):
            label, known = read_label(path, frame.window_affine(rows, cols), frame.crs, shape)
    except DamagedError as error:
        log.warning("label=%s left out: %s", path, error)
        return None
    return np.stack([label, known.astype(np.uint8)]) if known.any() else None


def tile_truth(
    assets: SceneAssets,
    land_cover: NDArray[np.uint8],
    frame: SceneFrame,
    rows: Interval,
    cols: Interval,
) -> dict[str, Any] | None:
    """Ground truth of a procedural tile, as a caption and numbers; None for any other scene."""
    # Objects are listed in pixels of the scene as stored, which is the canonical frame only there.
    if assets.objects is None or frame.orientation != Orientation():
        return None
    row, col = (1 / float(ratio) for ratio in frame.ratio)
    window = (rows[0] * row, cols[0] * col, (rows[1] - rows[0]) * row, (cols[1] - cols[0]) * col)
    return describe(land_cover[0], assets.objects, window=window).to_json()
