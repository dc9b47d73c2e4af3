"""Scenes whose headers alone say that no tile can be cut from them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.scene import Scene
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.grid import scene_frame, tile_grid
from sarhpc.tiling.plan import Opener, ScenePlan, header_refusal
from sarhpc.tiling.plane import header_in, opener_in
from sarhpc.tiling.read_errors import DamagedError, classify_read_errors


def refused_scenes(
    scenes: Iterable[Scene], cfg: TileConfig, opener: Opener = open_sar
) -> dict[str, str]:
    """Scene id -> why its header alone gives no tile; empty as soon as one scene may give some."""
    opener, refused = opener_in(cfg.plane, opener), dict[str, str]()
    for scene in scenes:
        try:
            with classify_read_errors(f"scene {scene.id}"), closing(opener(scene)) as reader:
                header = header_in(cfg.plane, reader.header)
                frame = scene_frame(header, cfg.pixel_m)
                found = header_refusal(scene, header, frame, tile_grid(frame, cfg), cfg)
        except DamagedError as error:
            found = ScenePlan(scene.id, rejected="unreadable", detail=str(error))
        if found is None:
            return {}
        refused[scene.id] = f"{found.rejected}: {found.detail}"
    return refused
