"""Partners for the cross-band layer: which scene images a tile in another band or polarisation.

Selected while planning, and written to the inputs of the shards: the nearest in time of those that
`tile.other` accepts and that cover the tile, ties by id. Every partner is opened and surveyed once.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.scene import SarReader, Scene
from sarhpc.tiling.block import read_patch
from sarhpc.tiling.config import CrossBandConfig, TileConfig
from sarhpc.tiling.grid import SceneFrame, TileGrid, resampling_ratio, scene_frame
from sarhpc.tiling.looks import Chip, homogeneous_chips, speckle_correlation
from sarhpc.tiling.pairs.area_resampling import Place, locate, pixel_extent
from sarhpc.tiling.pairs.conditions import CROSS_BAND
from sarhpc.tiling.pairs.scene_assets import gap_days
from sarhpc.tiling.read_errors import DamagedError, classify_read_errors
from sarhpc.tiling.splits.flight_lines import overlapping_scenes
from sarhpc.tiling.splits.footprint import crs_transformer
from sarhpc.tiling.survey import survey_scene, survey_windows

log = logging.getLogger(__name__)

_PROBES = 6
"""Points along each side of a tile at which the coverage of a partner is tested."""
_AT_ONCE = 1024
_CORRELATION_MPX = 1.0
"""Megapixels on which the correlation of speckle is measured."""

FURTHER = "other_further"
"""Entry of a shard's inputs: the partners to try next where the first has a gap."""
_MOST_FURTHER = 2

Ints = NDArray[np.int64]
Extent = tuple[float, float]


@dataclass(frozen=True)
class Paired:
    """Partners found for the tiles of one scene."""

    inputs: tuple[dict[str, Any], ...] = ()
    """Entry `other` of the shards' inputs: `scene_id`, `days`, `scene` (constants), `correlation`
    (of speckle along rows and columns)."""
    of_tiles: dict[str, Ints] = field(default_factory=dict)
    """Index (N,) in `inputs` of the partner of each tile, by split; -1 for none."""
    further: dict[str, dict[int, tuple[int, ...]]] = field(default_factory=dict)
    """By split and partner: indices in `inputs` of those that cover some of its tiles too, and show
    them where the first has a gap in its data."""

    def groups(self, split: str, tiles: Ints) -> Iterator[tuple[dict[str, Any], Ints]]:
        """Tiles of a split that share a partner, with the entry it adds to their shards."""
        of_tiles = self.of_tiles[split]
        for number in np.unique(of_tiles[of_tiles >= 0]).tolist():
            entry = {CROSS_BAND: self.inputs[number]}
            further = self.further.get(split, {}).get(number, ())
            if further:
                entry[FURTHER] = [self.inputs[other] for other in further]
            yield entry, tiles[of_tiles == number]


class Partners:
    """Candidate partners of the scenes to be tiled; each is opened and surveyed once."""

    def __init__(
        self,
        scenes: Iterable[Scene],
        offered: Iterable[Scene],
        cfg: TileConfig,
        opener: Callable[[Scene], SarReader],
    ) -> None:
        """Index the `offered` scenes that `cfg.other` accepts by the `scenes` they overlap."""
        assert cfg.other is not None
        self._cfg, self._limits, self._opener = cfg, cfg.other, opener
        wanted = [scene for scene in offered if _is_wanted(scene, cfg.other)]
        self._near = overlapping_scenes(scenes, wanted)
        # Scenes are planned by several threads, and many of them may share a partner.
        self._locks = {scene.id: threading.Lock() for scene in wanted}
        self._frames: dict[str, SceneFrame | None] = {}
        self._surveys: dict[tuple[str, Extent], dict[str, Any] | None] = {}

    def pair(
        self, scene: Scene, frame: SceneFrame, grid: TileGrid, tiles: Mapping[str, Ints]
    ) -> Paired:
        """The partner of each of `tiles` (N, 2) by split, of a scene that is being planned."""
        of_tiles = {split: np.full(len(some), -1, np.int64) for split, some in tiles.items()}
        inputs: list[dict[str, Any]] = []
        further: dict[str, dict[int, tuple[int, ...]]] = {split: {} for split in tiles}
        for days, partner in self._by_time(scene):
            own = self._frame(partner)
            if own is None:
                continue
            covered = {s: self._covered(frame, grid, tiles[s], own) for s in tiles}
            wanted = {s: self._tiles_for(of_tiles[s], further[s], covered[s]) for s in tiles}
            if not any(some.any() for some in wanted.values()):
                continue
            extent = self._extent(frame, own)
            survey = (
                self._surveyed(partner, own, extent) if all(map(math.isfinite, extent)) else None
            )
            if survey is None:
                continue
            for split, some in wanted.items():
                first = some & (of_tiles[split] < 0)
                for earlier in np.unique(of_tiles[split][some & ~first]).tolist():
                    further[split][earlier] = (*further[split].get(earlier, ()), len(inputs))
                of_tiles[split][first] = len(inputs)
            inputs.append({"scene_id": partner.id, "days": days, **survey})
        return Paired(tuple(inputs), of_tiles, further)

    def _tiles_for(
        self, of_tiles: Ints, further: Mapping[int, tuple[int, ...]], covered: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Covered tiles (N,) without a partner yet, or whose partner has few others behind it."""
        full = [number for number, others in further.items() if len(others) >= _MOST_FURTHER]
        return covered & ~np.isin(of_tiles, full)

    def missing_reason(self, scene: Scene) -> str:
        """Why a scene has no partner for any of its tiles, and the remedy."""
        other = self._limits
        limits = {"band": other.band, "polarization": other.polarization, "days": other.max_days}
        asked = [f"{name}={value}" for name, value in limits.items() if value is not None]
        met = len(self._near.get(scene.id, ()))
        return (
            f"no scene of {' '.join(asked)} covers a tile ({met} of that kind overlap its bounding "
            "box); widen tile.other, or select the scenes to tile by archive.band and the like"
        )

    def _by_time(self, scene: Scene) -> list[tuple[float | None, Scene]]:
        """Partners that overlap a scene, with gaps in days: nearest first, unknown times last."""
        gaps = [(gap_days(scene.datetime, p.datetime), p) for p in self._near.get(scene.id, ())]
        limit = self._limits.max_days
        if limit is not None:
            gaps = [(gap, each) for gap, each in gaps if gap is not None and gap <= limit]
        return sorted(gaps, key=lambda pair: (pair[0] is None, pair[0] or 0.0, pair[1].id))

    def _frame(self, partner: Scene) -> SceneFrame | None:
        """The frame of a partner at its own spacing; None if it cannot be used."""
        with self._locks[partner.id]:
            if partner.id not in self._frames:
                self._frames[partner.id] = self._opened_frame(partner)
            return self._frames[partner.id]

    @contextmanager
    def _opened(self, partner: Scene) -> Iterator[SarReader]:
        with classify_read_errors(f"scene {partner.id}"), closing(self._opener(partner)) as reader:
            yield reader

    def _opened_frame(self, partner: Scene) -> SceneFrame | None:
        try:
            with (
                classify_read_errors(f"scene {partner.id}"),
                closing(self._opener(partner)) as reader,
            ):
                header = reader.header
                frame = scene_frame(header, None)
                if header.crs is not None:
                    crs_transformer(
                        header.crs, "EPSG:4326"
                    )  # raises for a CRS that PROJ does not know
        except DamagedError as error:
            log.warning("partner=%s left out: %s", partner.id, error)
            return None
        if header.crs is None or (
            header.calibration == "none" and not self._cfg.allow_uncalibrated
        ):
            log.warning("partner=%s left out: no CRS or no calibration known", partner.id)
            return None
        return frame

    def _covered(
        self, frame: SceneFrame, grid: TileGrid, tiles: Ints, own: SceneFrame
    ) -> NDArray[np.bool_]:
        """Which of `tiles` (N, 2) the partner's image covers, valid pixels or not."""
        if frame.crs is None:
            return np.zeros(len(tiles), np.bool_)
        parts = [np.zeros(0, np.float64)]
        for first in range(0, len(tiles), _AT_ONCE):
            corners = tiles[first : first + _AT_ONCE, None, ::-1] * grid.stride_px
            points = frame.to_map(corners + grid.tile_px * _unit_probes())
            col, row = np.moveaxis(locate(own, frame.crs, points), -1, 0)
            rows, cols = own.canonical_shape
            inside = (row >= 0) & (row <= rows) & (col >= 0) & (col <= cols)
            parts.append(inside.mean(axis=1))
        return np.concatenate(parts) >= self._limits.min_coverage

    def _extent(self, frame: SceneFrame, own: SceneFrame) -> Extent:
        """Partner pixels along (rows, cols) per tile pixel, equal for similar scenes."""
        if self._cfg.pixel_m is not None:
            return self._cfg.pixel_m / own.spacing_m[0], self._cfg.pixel_m / own.spacing_m[1]
        assert frame.crs is not None
        whole = Place(frame.affine_at(0, 0), frame.crs, frame.shape)
        row, col = pixel_extent(own, whole)
        return float(f"{row:.2g}"), float(f"{col:.2g}")

    def _surveyed(self, partner: Scene, own: SceneFrame, extent: Extent) -> dict[str, Any] | None:
        with self._locks[partner.id]:
            key = (partner.id, extent)
            if key not in self._surveys:
                self._surveys[key] = self._survey(partner, own, extent)
            return self._surveys[key]

    def _survey(self, partner: Scene, own: SceneFrame, extent: Extent) -> dict[str, Any] | None:
        """Constants and speckle correlation of a partner averaged to tile pixels."""
        coarser = tuple(resampling_ratio(1.0, max(each, 1.0)) for each in extent)
        frame = replace(own, ratio=(coarser[0], coarser[1]))
        try:
            with (
                classify_read_errors(f"scene {partner.id}"),
                closing(self._opener(partner)) as reader,
            ):
                constants = survey_scene(reader, frame, replace(self._cfg, detect_first=True))
                correlation = _correlation(reader, own, max(extent))
        except DamagedError as error:
            log.warning("partner=%s left out: %s", partner.id, error)
            return None
        if constants is None or not constants.normalisation.top > 0:
            log.warning("partner=%s left out: no valid pixel, or no signal", partner.id)
            return None
        return {"scene": constants.to_json(), "correlation": correlation}


def _correlation(reader: SarReader, own: SceneFrame, extent: float) -> list[list[float]]:
    """Autocorrelation of speckle along rows and columns, up to the size of a tile pixel."""
    chips: list[Chip] = []
    for window in survey_windows(own.shape, _CORRELATION_MPX)[0]:
        patch = read_patch(reader, own, *window)
        chips.extend(homogeneous_chips(patch.intensity, patch.valid, reader.header.looks))
    found = speckle_correlation(chips, math.ceil(extent) + 1)
    return [[round(value, 4) for value in each.tolist()] for each in found]


def _is_wanted(scene: Scene, other: CrossBandConfig) -> bool:
    channels = scene.properties.get("sar:polarizations") or ()
    return (other.band is None or scene.band == other.band) and (
        other.polarization is None or other.polarization in channels
    )


def _unit_probes() -> NDArray[np.float64]:
    """Points (n, 2) = (col, row) spread evenly within the unit square."""
    steps = (np.arange(_PROBES) + 0.5) / _PROBES
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
