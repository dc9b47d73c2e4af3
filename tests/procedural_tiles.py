"""Tiles of the procedural archive with their true captions, made in memory, scene by scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.archive.procedural.truth.captions import describe
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard

PX = 128


def procedural_samples(
    seed: int, scenes: int, size_px: int = 384, stride_px: int = 128
) -> Iterator[Sample]:
    """Yield captioned samples as the stages `tile` and `caption` leave them, `mu+3sigma`."""
    cfg = ProceduralConfig(
        seed=seed, scenes=scenes, size_px=size_px, scenes_per_line=1, optical=False
    )
    number = 0
    for scene in scene_ids(cfg):
        made = simulate_scene(cfg, scene)
        amplitude = np.abs(made.sar)
        top = float(amplitude.mean() + 3 * amplitude.std())
        codes = np.rint(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)
        for row in range(0, size_px - PX + 1, stride_px):
            for col in range(0, size_px - PX + 1, stride_px):
                cut = np.s_[row : row + PX, col : col + PX]
                truth = describe(made.label[cut], made.objects, window=(row, col, PX, PX))
                meta: dict[str, Any] = {
                    "key": sample_key(0, number),
                    "scene_id": scene,
                    "split": "test",
                    "band": "X",
                    "pixel_m": 0.35,
                    "range_direction": "+col",
                    "normalisation": {"mode": "mu+3sigma", "top": top},
                    "truth": truth.to_json(),
                    "caption": {"SHORT": truth.caption},
                }
                members = {
                    "sar.png": encode_gray8(codes[cut]),
                    "txt": f"A SAR image of {truth.caption}".encode(),
                    "meta.json": encode_json(meta),
                }
                yield Sample(meta["key"], members)
                number += 1


def procedural_shard(path: Path, seed: int, scenes: int, **changes: Any) -> Path:
    """Write a shard of such samples."""
    write_shard(path, list(procedural_samples(seed, scenes, **changes)))
    return path
