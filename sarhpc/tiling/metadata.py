"""The `meta.json` of a tile: what is needed to georeference it and to invert its codes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sarhpc.archive.scene import SarHeader, Scene
from sarhpc.shards.sample import SAMPLE_SCHEMA
from sarhpc.tiling.grid import SceneFrame, TileGrid, TileIndex
from sarhpc.tiling.quality import TileQuality
from sarhpc.tiling.resolution import resolution_facts
from sarhpc.tiling.splits.footprint import tile_footprints
from sarhpc.tiling.survey import SceneConstants

_DECIMALS = 6


@dataclass(frozen=True)
class OpenScene:
    """An open scene, and what its tiles share."""

    scene: Scene
    header: SarHeader
    frame: SceneFrame
    grid: TileGrid
    constants: SceneConstants


def scene_metadata(opened: OpenScene) -> dict[str, Any]:
    """The entries of `meta.json` that all tiles of a scene share."""
    scene, header, frame = opened.scene, opened.header, opened.frame
    incidence = header.incidence_deg if header.incidence_deg is not None else scene.incidence_deg
    licence = scene.properties.get("license")
    negative = opened.constants.negative_fraction
    return {
        "schema": SAMPLE_SCHEMA,
        "synthetic": False,
        "scene_id": scene.id,
        "datetime": scene.datetime,
        "band": scene.band,
        "polarization": polarization_of(scene),
        "platform": scene.properties.get("platform"),
        "incidence_deg": incidence,
        "look_side": header.look_side,
        "range_direction": "+col",
        "crs": header.crs,
        "pixel_m": round(math.sqrt(frame.pixel_m[0] * frame.pixel_m[1]), 9),
        "native_pixel_m": list(header.spacing_m),
        "enl": round(opened.constants.enl, 4),
        "resampling": opened.constants.sampling.method,
        "normalisation": opened.constants.normalisation.to_json(),
        "calibration": header.calibration,
        # Only where it is known: older tiles keep their bytes.
        **({"licence": licence} if isinstance(licence, str) else {}),
        **({"negative_fraction": negative} if negative else {}),
        **header.facts,
        **resolution_facts(header, frame, opened.constants.sampling),
    }


def tile_metadata(
    opened: OpenScene, tile: TileIndex, quality: TileQuality, shared: Mapping[str, Any]
) -> dict[str, Any]:
    """`meta.json` of one tile, except for key, split and paired layers."""
    rows, cols = opened.grid.window(tile)
    outlines = tile_footprints(opened.frame, opened.grid, [tile])
    placed: dict[str, Any] = {}
    if opened.frame.placement is not None:
        placed["geolocation"] = {
            **opened.frame.placement.to_json(),
            "affine_error_m": round(opened.frame.affine_error_m(rows, cols), 3),
        }
    window = opened.frame.native_window(rows, cols)
    clipped = quality.clipped_power
    local = opened.header.local
    middle = window[0] + window[2] / 2, window[1] + window[3] / 2
    return {
        **shared,
        **placed,
        **({} if local is None else local.at(*middle)),
        "window": window,
        "affine": list(opened.frame.window_affine(rows, cols)),
        "footprint": None if outlines is None else outlines[0].tolist(),
        "valid_fraction": round(quality.valid_fraction, _DECIMALS),
        "saturated_fraction": round(quality.saturated_fraction, _DECIMALS),
        **({} if clipped is None else {"clipped_power": round(clipped, _DECIMALS)}),
    }


def polarization_of(scene: Scene) -> str | None:
    """Polarisation of a scene of one channel; None where there are several, or none is known."""
    channels = scene.properties.get("sar:polarizations") or []
    return channels[0] if len(channels) == 1 else None
