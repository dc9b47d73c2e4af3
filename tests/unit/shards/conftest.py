"""Tiles small enough to read by eye, with every member the schema knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sarhpc.shards.images import encode_array, encode_gray8, encode_rgb8
from sarhpc.shards.sample import SAMPLE_SCHEMA, Sample, encode_json, sample_key


def tile_meta(key: str, size: int) -> dict[str, Any]:
    return {
        "schema": SAMPLE_SCHEMA,
        "key": key,
        "synthetic": False,
        "scene_id": "scene-a",
        "split": "train",
        "datetime": "2024-05-01T10:00:00Z",
        "optic_datetime": None,
        "optic_delta_days": None,
        "band": "X",
        "polarization": "HH",
        "platform": "procedural",
        "incidence_deg": 45.0,
        "look_side": "right",
        "range_direction": "+col",
        "window": [0, 0, size, size],
        "affine": [0.35, 0.0, 500000.0, 0.0, -0.35, 4800000.0],
        "crs": "EPSG:32631",
        "footprint": [[3.0, 43.0], [3.1, 43.0], [3.1, 43.1], [3.0, 43.1], [3.0, 43.0]],
        "pixel_m": 0.35,
        "native_pixel_m": [0.2, 0.2],
        "enl": 1.0,
        "resampling": "fft",
        "valid_fraction": 1.0,
        "saturated_fraction": 0.01,
        "normalisation": {"mode": "mu+3sigma", "mu": 0.2, "sigma": 0.1, "top": 0.5},
        "master_scale": 1e-4,
        "calibration": "sigma0",
    }


def make_tile(shard: int, index: int, size: int = 16, caption: str | None = "a field") -> Sample:
    key = sample_key(shard, index)
    rng = np.random.default_rng([shard, index])
    gray = rng.integers(0, 256, (size, size), dtype=np.uint8)
    members = {
        "sar.png": encode_gray8(gray),
        "sar16.npy": encode_array(gray.astype(np.uint16) * 257),
        "optic.png": encode_rgb8(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)),
        "meta.json": encode_json(tile_meta(key, size)),
    }
    if caption is not None:
        members["txt"] = caption.encode()
    return Sample(key, members)


@pytest.fixture
def tile() -> Callable[..., Sample]:
    return make_tile
