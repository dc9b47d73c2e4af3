"""Tiling of one shard: blocks of one scene in, samples out, rejected tiles counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.scene import Archive, SarReader, Scene
from sarhpc.shards.images import encode_array, encode_gray8, encode_rgb8
from sarhpc.shards.radiometry import (
    MASTER_STEP_DB,
    Normalisation,
    encode_log_master,
    encode_master,
)
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.tiling.block import Block, read_block
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.fingerprints import content_digest, ground_hash
from sarhpc.tiling.grid import SceneFrame, TileGrid, TileIndex, scene_frame, tile_grid
from sarhpc.tiling.metadata import OpenScene, scene_metadata, tile_metadata
from sarhpc.tiling.orientation import Interval
from sarhpc.tiling.pairs.conditions import CROSS_BAND, TileLayers, make_conditions
from sarhpc.tiling.pairs.cross_band import CrossBandLayer, Partner, open_partner
from sarhpc.tiling.pairs.partners import FURTHER
from sarhpc.tiling.pairs.scene_assets import (
    SceneAssets,
    cut_label,
    cut_optical,
    scene_assets,
    tile_truth,
)
from sarhpc.tiling.plan import Opener
from sarhpc.tiling.plane import header_in, opener_in
from sarhpc.tiling.quality import reject_reason, tile_quality
from sarhpc.tiling.read_errors import DamagedError, classify_read_errors
from sarhpc.tiling.screening import floor_of, screen_tile
from sarhpc.tiling.survey import SceneConstants

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TiledShard:
    """Samples of a shard, generated lazily; the counts are complete after the last."""

    samples: Iterator[Sample]
    rejected: Counter[str]
    """Reason -> number of tiles; filled while `samples` is consumed."""
    notes: dict[str, str] = field(default_factory=dict)
    """Reason -> detail, for instance of an unreadable file."""


def tile_shard(
    shard: int,
    inputs: Mapping[str, Any],
    archive: Archive,
    cfg: TileConfig,
    *,
    opener: Opener = open_sar,
) -> TiledShard:
    """The tiles of one planned shard, with keys `sample_key(shard, position in the plan)`.

    Each block of the scene is read once. Except for key and split, the bytes of a tile depend
    only on scene, configuration and tile. Tiles of a scene that can no longer be read are rejected
    as `unreadable`; a transient error of the file system (OSError) is raised, to be retried.

    Args:
        shard: number of the shard.
        inputs: its inputs as planned by `plan_scenes`.
        archive: where the scene is.
        cfg: the configuration of the plan.
        opener: how a scene's SAR image is opened.
    """
    work = _ShardWork(shard, inputs, cfg)
    return TiledShard(_samples(work, archive, opener), work.rejected, work.notes)


@dataclass(frozen=True)
class _ShardWork:
    shard: int
    inputs: Mapping[str, Any]
    cfg: TileConfig
    rejected: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def tiles(self) -> dict[TileIndex, int]:
        """Planned tiles in order, with their position in the plan."""
        return {(row, col): index for index, (row, col) in enumerate(self.inputs["tiles"])}

    def unreadable(self, tiles: int, error: Exception) -> None:
        """Reject `tiles` whose pixels cannot be read."""
        log.warning("shard=%06d rejected=unreadable tiles=%d %s", self.shard, tiles, error)
        self.rejected["unreadable"] += tiles
        self.notes["unreadable"] = str(error)


def _samples(work: _ShardWork, archive: Archive, opener: Opener) -> Iterator[Sample]:
    scene_id = work.inputs["scene_id"]
    with ExitStack() as stack:
        try:
            with classify_read_errors(f"scene {scene_id}"):
                scene = _find(archive, scene_id)
                formed = opener_in(work.cfg.plane, opener)
                reader = stack.enter_context(closing(formed(scene)))
            partners = []
            if CROSS_BAND in work.inputs:
                for named in (work.inputs[CROSS_BAND], *work.inputs.get(FURTHER, ())):
                    opening = open_partner(named, partial(_find, archive), opener)
                    partners.append(stack.enter_context(opening))
        except DamagedError as error:
            work.unreadable(len(work.tiles), error)
            return
        opened = _open_scene(scene, reader, work)
        yield from _scene_samples(opened, reader, work, partners)


def _find(archive: Archive, scene_id: str) -> Scene:
    for scene in archive.search(ids=frozenset([scene_id])):
        return scene
    raise DataError(
        f"scene {scene_id} is planned but not in the archive; restore it, or plan again"
    )


def _open_scene(scene: Scene, reader: SarReader, work: _ShardWork) -> OpenScene:
    header = header_in(work.cfg.plane, reader.header)
    frame = scene_frame(header, work.cfg.pixel_m)
    constants = SceneConstants.from_json(work.inputs["scene"])
    return OpenScene(scene, header, frame, tile_grid(frame, work.cfg), constants)


def _scene_samples(
    opened: OpenScene, reader: SarReader, work: _ShardWork, partners: Sequence[Partner]
) -> Iterator[Sample]:
    assets = scene_assets(opened.scene, work.cfg)
    line = opened.scene.properties.get(work.cfg.split.line_property)
    flight = {} if line is None else {"flight_line": str(line)}
    shared = {**scene_metadata(opened), **flight, "split": work.inputs["split"]}
    positions = work.tiles
    inside = [tile for tile in positions if tile in opened.grid]
    if len(inside) < len(positions):
        work.rejected["outside"] += len(positions) - len(inside)
    for block_index, tiles in opened.grid.by_block(inside):
        window = opened.grid.block_window(block_index)
        try:
            with classify_read_errors(f"scene {opened.scene.id}"):
                block = read_block(reader, opened.frame, opened.constants.sampling, *window)
        except DamagedError as error:
            work.unreadable(len(tiles), error)
            continue
        cutter = _Cutter(opened, work.cfg, assets, shared, block, partners)
        for tile in tiles:
            try:
                made = cutter.cut(tile, sample_key(work.shard, positions[tile]))
            except DamagedError as error:
                work.unreadable(1, error)
                continue
            if isinstance(made, str):
                work.rejected[made] += 1
            else:
                yield made


@dataclass(frozen=True)
class _Cutter:
    """What the tiles of one block are cut from."""

    opened: OpenScene
    cfg: TileConfig
    assets: SceneAssets
    shared: Mapping[str, Any]
    block: Block
    partners: Sequence[Partner]
    """Scenes that may show a tile in the cross-band layer, the one to try first."""

    def cut(self, tile: TileIndex, key: str) -> Sample | str:
        """The sample of a tile, or the reason why it is rejected."""
        part = _part(self.block, self.opened.grid, tile)
        amplitude, valid = self.block.amplitude[part], self.block.valid[part]
        nonfinite = None if self.block.nonfinite is None else self.block.nonfinite[part]
        law = self.opened.constants.normalisation
        window = law if law.mode == "db" and self.cfg.db_scope == "archive" else None
        quality = tile_quality(amplitude, valid, nonfinite, law.top, window)
        reason = reject_reason(quality, self.cfg)
        if reason is None and self.cfg.screen:
            reason = self._screened(tile, amplitude, valid, part)
        if reason is not None:
            return reason
        place = (self.opened.frame, *self.opened.grid.window(tile))
        optic = cut_optical(self.assets, *place, self.cfg.min_optical_coverage)
        if optic is None and self.cfg.require_optical:
            return "optical_missing"
        members, master = _pictures(amplitude, law, self.cfg.master)
        meta = tile_metadata(self.opened, tile, quality, self.shared)
        meta |= {"key": key, **master, **self._optic_dates(optic is not None)}
        if self.cfg.write_complex and self.block.field is not None:
            members["sar.npy"] = encode_array(np.ascontiguousarray(self.block.field[part]))
        if optic is not None:
            members["optic.png"] = encode_rgb8(optic)
        land_cover = cut_label(self.assets, *place)
        if land_cover is not None:
            members["landcover.npy"] = encode_array(land_cover)
            truth = tile_truth(self.assets, land_cover, *place)
            meta |= {} if truth is None else {"truth": truth}
        if self.cfg.conditions:
            layers = TileLayers(amplitude, valid, optic, land_cover, self._cross_band(*place))
            constants = self.opened.constants
            made = make_conditions(layers, constants.enl, constants.normalisation, self.cfg)
            if made is None:
                return "condition_missing"
            members |= made[0]
            meta |= made[1]
        if self.cfg.fingerprints or self.cfg.dedupe:
            meta |= {
                "content_digest": content_digest(amplitude, valid),
                "ground_hash": ground_hash(amplitude, valid),
            }
        members["meta.json"] = encode_json(meta)
        return Sample(key, members)

    def _screened(
        self,
        tile: TileIndex,
        amplitude: NDArray[np.float32],
        valid: NDArray[np.bool_],
        part: tuple[slice, slice],
    ) -> str | None:
        header = self.opened.header
        row, col, rows, cols = self.opened.frame.native_window(*self.opened.grid.window(tile))
        calibrated = header.calibration == "sigma0"
        floor = floor_of(header.local, row + rows / 2, col + cols / 2) if calibrated else None
        field = None if self.block.field is None else self.block.field[part]
        return screen_tile(amplitude, valid, field, floor)

    def _cross_band(
        self, frame: SceneFrame, rows: Interval, cols: Interval
    ) -> CrossBandLayer | None:
        if self.cfg.other is None:
            return None
        least = self.cfg.other.min_coverage
        layers = (partner.cut(frame, rows, cols, least) for partner in self.partners)
        return next((layer for layer in layers if layer is not None), None)

    def _optic_dates(self, present: bool) -> dict[str, Any]:
        return {
            "optic_datetime": self.assets.optic_datetime if present else None,
            "optic_delta_days": self.assets.optic_delta_days if present else None,
        }


def _pictures(
    amplitude: NDArray[np.float32], normalisation: Normalisation, law: str
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The members of amplitude (H, W), and the metadata that invert the master."""
    if law == "log":
        codes, lowest = encode_log_master(amplitude)
        inversion = {"master_scale": lowest, "master_law": law, "master_step_db": MASTER_STEP_DB}
    else:
        codes, scale = encode_master(amplitude)
        inversion = {"master_scale": scale}
    picture = encode_gray8(normalisation.encode(amplitude))
    return {"sar.png": picture, "sar16.npy": encode_array(codes)}, inversion


def _part(block: Block, grid: TileGrid, tile: TileIndex) -> tuple[slice, slice]:
    rows, cols = grid.window(tile)
    row, col = rows[0] - block.rows[0], cols[0] - block.cols[0]
    return np.s_[row : row + grid.tile_px, col : col + grid.tile_px]
