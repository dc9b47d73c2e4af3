"""Prior preservation and token learning in the engine: what they keep, what they teach, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_ranks import (
    Job,
    RadarTiles,
    contents,
    differences,
    step_folder,
    tiny_config,
    train_ranks,
)

from sarhpc.diffusion.bundle import load_bundle
from sarhpc.diffusion.config import AdapterConfig, TokenConfig
from sarhpc.shards.images import encode_rgb8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.config import PriorConfig
from sarhpc.training.metrics.log import read_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aerial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven smooth colour images without captions, in two shards."""
    folder = tmp_path_factory.mktemp("prior")
    rows = np.linspace(0, 255, 32)[:, None, None]
    for shard, count in ((0, 4), (1, 3)):
        samples = []
        for index in range(count):
            image = np.broadcast_to(rows * (1 + index) / 4, (32, 32, 3)).astype(np.uint8)
            key = sample_key(shard, index)
            members = {"optic.png": encode_rgb8(image), "meta.json": encode_json({"key": key})}
            samples.append(Sample(key, members))
        write_shard(folder / "train" / f"{shard:06d}.tar", samples)
    return folder


def prior_losses(base: Path, folder: Path, cfg: Any) -> list[float]:
    job = Job(base, folder, cfg)
    assert train_ranks(job, world=1) == [0]
    return [row["prior_loss"] for row in read_rows(folder / "metrics.jsonl")]


def test_prior_images_keep_the_loss_of_what_the_model_knew(
    tiny_bundle: Path, aerial: Path, tmp_path: Path
) -> None:
    kept, lost = (
        prior_losses(
            tiny_bundle,
            tmp_path / f"weight{weight}",
            tiny_config(
                prior=PriorConfig(shards=str(aerial), weight=weight),
                max_steps=60,
                epochs=100,
                lr_unet=3e-3,
                lr_schedule="cosine",
                micro_batch=8,
            ),
        )
        for weight in (1.0, 0.0)
    )
    assert kept[0] == lost[0]
    # The last steps draw the same noise for the same images.
    assert np.mean(kept[-10:]) < np.mean(lost[-10:])


def test_a_killed_training_with_prior_and_token_resumes_to_the_bit(
    tiny_bundle: Path, aerial: Path, tmp_path: Path
) -> None:
    cfg = tiny_config(
        prior=PriorConfig(shards=str(aerial)),
        token=TokenConfig(initializer="forest", lr=1e-2),
        adapter=AdapterConfig(rank=2),
        zero_stage=3,
        max_steps=4,
        checkpoint_every_steps=2,
        azimuth_flip=True,
    )
    whole = Job(tiny_bundle, tmp_path / "whole", cfg, samples=RadarTiles())
    assert train_ranks(whole) == [0, 0]
    faults = {0: "training.after_step:3:kill"}
    killed = Job(tiny_bundle, tmp_path / "killed", cfg, samples=RadarTiles(), faults=faults)
    assert -9 in train_ranks(killed)
    resumed = Job(tiny_bundle, tmp_path / "killed", cfg, samples=RadarTiles(), attempt=2)
    assert train_ranks(resumed) == [0, 0]

    assert differences(contents(step_folder(whole, 4)), contents(step_folder(resumed, 4))) == []
    first = read_rows(whole.root / "metrics.jsonl")[0]
    assert first["lr_token"] == pytest.approx(5e-3)
    assert first["grad_norm_token"] > 0


def test_a_token_alone_moves_and_nothing_else_does(tiny_bundle: Path, tmp_path: Path) -> None:
    cfg = tiny_config(
        token=TokenConfig(initializer="forest", lr=1e-2),
        lr_unet=0.0,
        lr_text_encoder=0.0,
        max_steps=3,
        caption_dropout=0.0,
    )
    job = Job(tiny_bundle, tmp_path, cfg, samples=RadarTiles())
    assert train_ranks(job) == [0, 0]

    [(name, row)] = read_weights(step_folder(job, 3), average=False).items()
    assert name.endswith("token_embedding.learned")
    bundle = load_bundle(tiny_bundle)
    ids = bundle.tokenizers[0]("forest", add_special_tokens=False).input_ids
    start = bundle.encoders[0].get_input_embeddings().weight[torch.tensor(ids)].mean(0)
    assert 1e-3 < (row - start).abs().max() < 0.1


def test_captions_without_the_token_end_the_training_with_a_word_about_it(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    cfg = tiny_config(token=TokenConfig(), lr_unet=0.0, lr_text_encoder=0.0, max_steps=1)
    assert train_ranks(Job(tiny_bundle, tmp_path, cfg)) == [3, 3]
    assert "hold the token" in (tmp_path / "error_0.txt").read_text()
