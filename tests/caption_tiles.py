"""Coloured tiles with captions: what a very small BLIP can learn in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.captioning.config import BlipModelConfig, CaptionSetConfig, CaptionTrainConfig
from sarhpc.shards.images import encode_gray8, encode_rgb8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard

Rgb = NDArray[np.uint8]

GROUNDS = {
    "calm water in a broad river": (20, 60, 110),
    "a dense dark forest": (25, 70, 30),
    "ripe fields of grain divided by paths": (200, 180, 90),
    "a town of red roofs": (180, 80, 70),
}

SMALL = BlipModelConfig(
    image_px=32,
    patch_px=8,
    vision_width=48,
    vision_layers=2,
    text_width=48,
    text_layers=2,
    max_positions=24,
    vocabulary=160,
)


def ground_training_of(root: Path, **changes: Any) -> CaptionTrainConfig:
    """A fine-tuning of a small BLIP on the grounds written under `root`."""
    values: dict[str, Any] = {
        "train": [CaptionSetConfig(path=str(root), split="train")],
        "val": [CaptionSetConfig(path=str(root), split="val")],
        "new": SMALL,
        "batch": 8,
        "max_tokens": 16,
        "device": "cpu",
        "eval_beams": 2,
    }
    return CaptionTrainConfig(**{**values, **changes})


def draw_ground(color: tuple[int, int, int], seed: int, size: int = 40) -> Rgb:
    """An image (size, size, 3) of one colour with a little noise."""
    noise = np.random.default_rng(seed).normal(0, 8, (size, size, 3))
    return np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)


def make_sample(index: int, caption: str | None, optical: Rgb | None, shard: int = 0) -> Sample:
    """A tile as the tile stage leaves it, as far as captioning looks at it."""
    key = sample_key(shard, index)
    meta = {"key": key, "band": "X", "pixel_m": 0.35, "incidence_deg": 45.2}
    if caption is not None:
        meta["truth"] = {"caption": caption, "relations": [], "class_fractions": {}}
    members = {"meta.json": encode_json(meta), "sar.png": encode_gray8(np.ones((8, 8), np.uint8))}
    if optical is not None:
        members["optic.png"] = encode_rgb8(optical)
    return Sample(key, members)


def write_grounds(root: Path, split: str, shard: int, seed: int) -> None:
    """Write one shard with three tiles of each ground."""
    samples = [
        make_sample(3 * row + copy, caption, draw_ground(color, seed + 10 * row + copy), shard)
        for row, (caption, color) in enumerate(GROUNDS.items())
        for copy in range(3)
    ]
    write_shard(root / split / f"{shard:06d}.tar", samples)
