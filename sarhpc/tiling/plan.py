"""The plan of tiling: the tiles of each shard, and the scenes that are rejected, with reasons."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.scene import SarHeader, SarReader, Scene
from sarhpc.shards.radiometry import amplitude_of_db
from sarhpc.shards.sample import SPLITS
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.config_checks import check_config
from sarhpc.tiling.db_window import ArchiveWindow, LevelCounts, archive_window
from sarhpc.tiling.grid import (
    MAX_UPSAMPLING,
    SceneFrame,
    TileGrid,
    scene_frame,
    tile_grid,
)
from sarhpc.tiling.pairs.conditions import CROSS_BAND
from sarhpc.tiling.pairs.partners import Paired, Partners
from sarhpc.tiling.plan_warnings import (
    warn_of_mixed_resolutions,
    warn_of_negative_pixels,
)
from sarhpc.tiling.plane import header_in, opener_in
from sarhpc.tiling.read_errors import DamagedError, classify_read_errors
from sarhpc.tiling.resolution import resolution_m
from sarhpc.tiling.shard_inputs import first_tiles, tile_positions
from sarhpc.tiling.splits.assignment import (
    line_buffer_m,
    split_buffer_m,
    split_of,
    stated_spacing,
    with_cells_for,
)
from sarhpc.tiling.splits.earth_cells import NearCells, near_cells
from sarhpc.tiling.splits.flight_lines import flight_line_of, line_groups, reflown
from sarhpc.tiling.splits.proof import split_proof
from sarhpc.tiling.survey import SceneConstants, survey_scene

log = logging.getLogger(__name__)

Opener = Callable[[Scene], SarReader]
OrderedMap = Callable[[Callable[[Scene], "ScenePlan"], Iterable[Scene]], Iterable["ScenePlan"]]


@dataclass(frozen=True)
class ScenePlan:
    """The plan of one scene: tiles per split, or the reason for its rejection."""

    scene_id: str
    tiles: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Tiles (N, 2) as (row, col) by split, block by block."""
    constants: dict[str, Any] = field(default_factory=dict)
    """SceneConstants as JSON."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Tiles of the scene that no shard takes, counted by reason."""
    rejected: str | None = None
    """Reason for which the whole scene is rejected, one of SCENE_REASONS."""
    detail: str = ""
    """Cause and remedy for a rejected scene."""
    line: str = ""
    """Flight line of the scene."""
    cells: dict[str, str] = field(default_factory=dict)
    """Split by cell of the Earth (or group of scenes) near the kept tiles."""
    paired: Paired | None = None
    """Partners of the tiles, where the cross-band layer is requested."""
    levels: LevelCounts | None = None
    """Pixels by level, where one dB window is chosen for the archive."""
    irw_m: tuple[float, float] | None = None
    """Resolution (azimuth, range) of its tiles, metres, where the file states it."""


@dataclass(frozen=True)
class TilePlan:
    """The immutable list of shards, and what was rejected or dropped."""

    shards: list[dict[str, Any]]
    """Inputs of each shard as JSON: `split`, `scene_id`, `tiles` [[row, col], ...], `scene`, and
    with a partner `other`. Equal [row, col] of all shards are one object, which keeps plans of ten
    million tiles small."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Scene id -> `reason: cause and remedy`."""
    counts: dict[str, int] = field(default_factory=dict)
    """`scenes`, `scenes_rejected`, `tiles`, `tiles_train` ..., `tiles_dropped_split_buffer` ..."""
    proof: dict[str, Any] = field(default_factory=dict)
    """Proof that no ground lies in two splits; see `split_proof`."""
    reflown: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of scenes whose bounding boxes share ground."""
    window: ArchiveWindow | None = None
    """The dB window of the archive, where one was chosen (`db_scope=archive`)."""
    resolutions: dict[str, list[float]] = field(default_factory=dict)
    """Scene id -> resolution (azimuth, range) of its tiles, metres, where files state them."""


def plan_scenes(
    scenes: Iterable[Scene],
    cfg: TileConfig,
    *,
    opener: Opener = open_sar,
    scatter: OrderedMap = map,
    offered: Iterable[Scene] | None = None,
) -> TilePlan:
    """The plan over chosen `scenes`, in the order of their ids.

    Args:
        scenes: to cut into tiles.
        cfg: tile geometry, limits, split.
        opener: how a scene's SAR image is opened.
        scatter: a `map` that may process scenes in parallel, but keeps their order.
        offered: the scenes that partners for the cross-band layer are taken from; None takes them
            from `scenes`.

    Raises:
        ConfigError: the configuration contradicts itself.
    """
    check_config(cfg)
    listed = list(scenes)
    cfg = with_cells_for(cfg, map(stated_spacing, listed))
    groups = line_groups(listed, cfg.split, line_buffer_m(cfg)) if cfg.split.by == "line" else None
    partners = None
    if CROSS_BAND in cfg.conditions:
        partners = Partners(listed, listed if offered is None else offered, cfg, opener)
    plan_one = functools.partial(
        plan_scene, cfg=cfg, opener=opener, groups=groups, partners=partners
    )
    plans = sorted(scatter(plan_one, listed), key=lambda plan: plan.scene_id)
    window = archive_window({p.scene_id: p.levels for p in plans if p.tiles and p.levels})
    if window is not None:
        plans = [_in_window(plan, window) for plan in plans]
    pairs: dict[int, list[int]] = {}
    shards = [shard for plan in plans for shard in _shards(plan, cfg.shard_samples, pairs)]
    planned = sum(len(shard["tiles"]) for shard in shards)
    shards = first_tiles(shards, cfg.max_tiles)
    for plan in plans:
        if plan.rejected:
            log.warning("scene=%s rejected=%s %s", plan.scene_id, plan.rejected, plan.detail)
    counts = _counts(plans, shards, planned)
    resolutions = {p.scene_id: list(p.irw_m) for p in plans if p.tiles and p.irw_m}
    warn_of_mixed_resolutions(resolutions)
    return TilePlan(
        shards=shards,
        rejected={p.scene_id: f"{p.rejected}: {p.detail}" for p in plans if p.rejected},
        counts=counts,
        proof=_proof(plans, cfg),
        reflown=reflown(listed),
        window=window,
        resolutions=resolutions,
    )


def _in_window(plan: ScenePlan, window: ArchiveWindow) -> ScenePlan:
    """The plan of a scene with the window of the archive in its constants."""
    if not plan.constants:
        return plan
    low, top = amplitude_of_db(window.low_db), amplitude_of_db(window.top_db)
    normalisation = {**plan.constants["normalisation"], "low": low, "top": top}
    constants = {**plan.constants, "normalisation": normalisation}
    return replace(plan, constants=constants, levels=None)


def _proof(plans: Sequence[ScenePlan], cfg: TileConfig) -> dict[str, Any]:
    """The proof over all planned scenes."""
    known = cfg.pixel_m is not None or cfg.split.buffer_m is not None
    return split_proof(
        (pair for plan in plans for pair in plan.cells.items()),
        ((plan.line, split) for plan in plans for split in plan.tiles),
        by=cfg.split.by,
        cell_m=cfg.split.cell_m,
        # Without a common spacing each scene has its own buffer, half the diagonal of its tiles.
        buffer_m=split_buffer_m(cfg, cfg.pixel_m or 0.0) if known else None,
    )


def plan_scene(
    scene: Scene,
    cfg: TileConfig,
    opener: Opener = open_sar,
    groups: Mapping[str, str] | None = None,
    partners: Partners | None = None,
) -> ScenePlan:
    """The plan of one scene; an unusable scene is rejected with a reason, not an exception.

    `groups` names the group of every scene that goes to one split as a whole (`split.by=line`);
    `partners` are candidates for the cross-band layer, if it is requested.
    """
    opener = opener_in(cfg.plane, opener)
    try:
        with classify_read_errors(f"scene {scene.id}"), closing(opener(scene)) as reader:
            return _plan_open_scene(scene, reader, cfg, groups, partners)
    except DamagedError as error:
        return ScenePlan(scene.id, rejected="unreadable", detail=str(error))


def _plan_open_scene(
    scene: Scene,
    reader: SarReader,
    cfg: TileConfig,
    groups: Mapping[str, str] | None,
    partners: Partners | None,
) -> ScenePlan:
    header = header_in(cfg.plane, reader.header)
    frame = scene_frame(header, cfg.pixel_m)
    grid = tile_grid(frame, cfg)
    refusal = header_refusal(scene, header, frame, grid, cfg)
    if refusal:
        return refusal
    constants = survey_scene(reader, frame, cfg)
    if constants is None:
        return ScenePlan(scene.id, rejected="nodata", detail="no valid pixel; remove the scene")
    warn_of_negative_pixels(scene.id, constants.negative_fraction)
    if not constants.normalisation.top > 0:
        return ScenePlan(scene.id, rejected="no_signal", detail="all zero; remove the scene")
    plan = _split_tiles(scene, frame, grid, constants, cfg, groups)
    plan = replace(plan, irw_m=resolution_m(header, frame, constants.sampling))
    if partners is None or not plan.tiles:
        return plan
    return _with_partners(plan, partners.pair(scene, frame, grid, plan.tiles), partners, scene)


def _with_partners(plan: ScenePlan, paired: Paired, partners: Partners, scene: Scene) -> ScenePlan:
    if not paired.inputs:
        return ScenePlan(scene.id, rejected="no_partner", detail=partners.missing_reason(scene))
    alone = sum(int(np.count_nonzero(of_tiles < 0)) for of_tiles in paired.of_tiles.values())
    dropped = {**plan.dropped, **({"no_partner": alone} if alone else {})}
    return replace(plan, dropped=dropped, paired=paired)


def header_refusal(
    scene: Scene, header: SarHeader, frame: SceneFrame, grid: TileGrid, cfg: TileConfig
) -> ScenePlan | None:
    """The rejection of a scene that its header alone justifies, if any."""
    if header.calibration == "none" and not cfg.allow_uncalibrated:
        detail = "no calibration known; add it to the scene, or set tile.allow_uncalibrated=true"
        return ScenePlan(scene.id, rejected="uncalibrated", detail=detail)
    if cfg.plane == "slant" and header.slant_spacing_m is None:
        detail = (
            "tile.plane=slant, and no spacing in slant range is known (a projected or detected "
            "image?); set tile.plane=ground, or declare geometry: slant and spacing_m"
        )
        return ScenePlan(scene.id, rejected="no_slant", detail=detail)
    if frame.upsampling > MAX_UPSAMPLING and not cfg.allow_upsampling:
        spacing = " x ".join(f"{metres:g}" for metres in frame.spacing_m)
        detail = (
            f"{spacing} m to {cfg.pixel_m:g} m is finer by {frame.upsampling:.2f}, beyond "
            f"{MAX_UPSAMPLING}; raise tile.pixel_m, set it to null, or tile.allow_upsampling=true"
        )
        return ScenePlan(scene.id, rejected="upsampling", detail=detail)
    if grid.rows * grid.cols == 0:
        rows, cols = frame.shape
        detail = f"{rows} x {cols} pixels at tile spacing, a tile has {cfg.tile_px}"
        return ScenePlan(
            scene.id, rejected="too_small", detail=f"{detail}; lower tile.tile_px or pixel_m"
        )
    return None


def _split_tiles(
    scene: Scene,
    frame: SceneFrame,
    grid: TileGrid,
    constants: SceneConstants,
    cfg: TileConfig,
    groups: Mapping[str, str] | None,
) -> ScenePlan:
    tiles = grid.indices()
    line = flight_line_of(scene, cfg.split)
    cells: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    if groups is not None:
        group = groups[scene.id]
        whole = split_of(group, cfg.split)
        kept, cells = {whole: tiles}, {group: whole}
    else:
        near = _near(frame, grid, tiles, cfg)
        splits = _splits(scene.id, near, len(tiles), cfg)
        wanted = split_of(line, cfg.split) if cfg.split.by == "cell+line" else None
        dropped["split_buffer"] = int(np.count_nonzero(splits < 0))
        kept = {}
        for number, name in enumerate(SPLITS):
            chosen = splits == number
            if wanted not in (None, name):
                dropped["split_line"] += int(np.count_nonzero(chosen))
                continue
            kept[name] = tiles[chosen]
            if chosen.any():
                own = [f"scene:{scene.id}"] if near is None else near.of_tiles(chosen)
                cells |= dict.fromkeys(own, name)
    return ScenePlan(
        scene_id=scene.id,
        tiles={name: chosen for name, chosen in kept.items() if len(chosen)},
        constants=constants.to_json(),
        levels=constants.levels,
        dropped={reason: number for reason, number in dropped.items() if number},
        line=line,
        cells=cells,
    )


def _near(
    frame: SceneFrame, grid: TileGrid, tiles: NDArray[np.int64], cfg: TileConfig
) -> NearCells | None:
    return near_cells(frame, grid, tiles, split_buffer_m(cfg, max(frame.pixel_m)), cfg.split.cell_m)


def _splits(
    scene_id: str, near: NearCells | None, tiles: int, cfg: TileConfig
) -> NDArray[np.int64]:
    """The split of each tile as its number in SPLITS; -1 for one too near to another split."""
    if near is None or 1 in cfg.split.fractions:
        return np.full(tiles, SPLITS.index(split_of(f"scene:{scene_id}", cfg.split)), np.int64)
    owners = [SPLITS.index(split_of(name, cfg.split)) for name in near.names]
    return near.shared_values(np.array(owners, np.int64))


def _shards(plan: ScenePlan, size: int, pairs: dict[int, list[int]]) -> list[dict[str, Any]]:
    """Inputs of the shards of one scene; `pairs` keeps one [row, col] for all that are equal."""
    return [
        {
            "split": split,
            "scene_id": plan.scene_id,
            "tiles": tile_positions(tiles[first : first + size], pairs),
            "scene": plan.constants,
            **partner,
        }
        for split, every in plan.tiles.items()
        for partner, tiles in (plan.paired.groups(split, every) if plan.paired else [({}, every)])
        for first in range(0, len(tiles), size)
    ]


def _counts(
    plans: Sequence[ScenePlan], shards: Sequence[dict[str, Any]], planned: int
) -> dict[str, int]:
    counts: Counter[str] = Counter(scenes=len(plans), tiles=0)
    for plan in plans:
        counts["scenes_rejected"] += plan.rejected is not None
        for reason, number in plan.dropped.items():
            counts[f"tiles_dropped_{reason}"] += number
    for shard in shards:
        counts["tiles"] += len(shard["tiles"])
        counts[f"tiles_{shard['split']}"] += len(shard["tiles"])
    counts["tiles_dropped_max_tiles"] = planned - counts["tiles"]
    return {name: number for name, number in counts.items() if number or name in _ALWAYS}


_ALWAYS = ("scenes", "scenes_rejected", "tiles")
