"""Small radar tiles with captions, a small CLIP of the real classes, and its training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hpc.job.agreement import RankGroup
from hpc.job.checkpoint import CheckpointStore
from hpc.job.stop import StopRequest
from sarhpc.captioning.contrastive.config import ClipModelConfig, ClipTrainConfig
from sarhpc.captioning.contrastive.finetune import train_clip
from sarhpc.captioning.contrastive.task import ClipTask
from sarhpc.captioning.contrastive.tiles import CaptionedTiles
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.samples import ShardedSamples, find_shards
from sarhpc.shards.writer import write_shard
from sarhpc.stages.caption_judging import judged_record, load_chosen
from sarhpc.stages.clip_train import loop_config, open_clip
from sarhpc.training.context import TrainContext
from sarhpc.training.judged import best_steps
from sarhpc.training.trainer import fit

SMALL = ClipModelConfig(
    image_px=16,
    patch_px=4,
    vision_width=32,
    vision_layers=2,
    text_width=32,
    text_layers=2,
    max_positions=24,
    vocabulary=560,
    projection=16,
)
LEVELS = {"a lake": 20, "a forest": 90, "a field": 150, "a town": 230}
PLACES = {"in the near range": slice(0, 8), "in the far range": slice(24, 32)}


def radar_tile(rng: np.random.Generator) -> tuple[Any, str]:
    """Codes (32, 32) with a bright strip in near or far range, and the caption that says so."""
    ground = list(LEVELS)[int(rng.integers(len(LEVELS)))]
    place = list(PLACES)[int(rng.integers(len(PLACES)))]
    level = np.full((32, 32), float(LEVELS[ground]))
    level[:, PLACES[place]] = 255 - LEVELS[ground]
    codes = np.clip(level * rng.gamma(4, 0.25, level.shape), 0, 255).astype(np.uint8)
    return codes, f"{ground} with a strip {place}"


def write_radar_tiles(root: Path, split: str, count: int, shard: int = 0) -> Path:
    """Write a captioned shard of `split`; its path."""
    rng = np.random.default_rng([shard, count])
    samples = []
    law = {"mode": "mu+3sigma", "mu": 0.3, "sigma": 0.2, "top": 1.0}
    for index in range(count):
        codes, caption = radar_tile(rng)
        key = sample_key(shard, index)
        members = {
            "sar.png": encode_gray8(codes),
            "txt": caption.encode(),
            "meta.json": encode_json({"key": key, "normalisation": law}),
        }
        samples.append(Sample(key, members))
    path = root / split / f"{shard:06d}.tar"
    write_shard(path, samples)
    return path


def clip_training(**changes: Any) -> ClipTrainConfig:
    """A contrastive training of a new small CLIP, of a few steps of milliseconds."""
    values: dict[str, Any] = {
        "base_model": None,
        "new": SMALL,
        "steps": 6,
        "batch": 8,
        "lr": 2e-3,
        "warmup_steps": 2,
        "device": "cpu",
        "val_every": 3,
        "log_every": 1,
        "readers": 1,
        "checkpoint_every_s": 1e9,
    }
    return ClipTrainConfig(**{**values, **changes})


def fine_tune_clip(
    cfg: ClipTrainConfig, tiles: Path, folder: Path, ranks: RankGroup, attempt: int = 0
) -> None:
    """Train on the shards below `tiles` as one of `ranks`; everything goes to `folder`."""
    train, val = (
        CaptionedTiles(ShardedSamples(find_shards(tiles, split)), cfg.text)
        for split in ("train", "val")
    )
    store = CheckpointStore(
        folder / "checkpoints",
        ranks,
        attempt,
        cfg.keep_last,
        also_keep=lambda: best_steps(folder, cfg.judge),
    )
    with StopRequest(ranks, poll_s=0.0) as stop:
        ctx = TrainContext(folder, store, stop)

        def fitted(task: ClipTask) -> int:
            """Train to the end; the step whose weights are published."""
            result = fit(loop_config(cfg, ranks.world), task, ranks, ctx)
            # Nothing of a run is needed for it.
            assert result.checkpoint is not None
            return load_chosen(task, cfg, ranks, folder, result.checkpoint, None)

        clip = open_clip(cfg, train, folder, ranks)
        record = judged_record(folder)
        train_clip(clip, train, val, cfg, folder / "model", ranks, fitted, lambda: None, record)


def metric_rows(folder: Path, key: str) -> Iterator[dict[str, Any]]:
    """Yield rows of metrics.jsonl that have `key`."""
    import json

    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if key in row:
            yield row
