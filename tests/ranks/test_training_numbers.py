"""What a training does to the numbers: rates, averages, stages, world sizes, NaN."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from training_ranks import Job, RandomTiles, step_folder, tiny_config, train_ranks

from sarhpc.diffusion.bundle import load_bundle
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.config import TrainConfig
from sarhpc.training.metrics.log import PARTS, read_rows
from sarhpc.training.schedule import ema_decay

pytestmark = pytest.mark.slow


def base_weights(base: Path) -> dict[str, torch.Tensor]:
    """Parameters of the base under the names the training gives them."""
    bundle = load_bundle(base)
    return {
        f"{group}.{name}": parameter.detach()
        for group, model in bundle.models.items()
        for name, parameter in model.named_parameters()
    }


TOLD = ("loss", "grad_norm", "grad_norm_unet", "grad_norm_text_encoder")


def measured(base: Path, folder: Path, cfg: TrainConfig, world: int) -> NDArray[np.float64]:
    """What each step tells of `TOLD` (steps, 4)."""
    job = Job(base, folder, cfg)
    assert train_ranks(job, world) == [0] * world
    rows = read_rows(folder / "metrics.jsonl")
    return np.array([[row[name] for name in TOLD] for row in rows])


def test_losses_and_norms_are_the_same_for_every_stage_and_world_size(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    runs = {
        (stage, world): measured(
            tiny_bundle,
            tmp_path / f"zero{stage}x{world}",
            tiny_config(zero_stage=stage, max_steps=3, epochs=9, grad_clip=0.01),
            world,
        )
        for stage, world in ((2, 1), (0, 2), (1, 2), (2, 2), (3, 2))
    }

    for found in runs.values():
        np.testing.assert_allclose(found[:, 0], runs[2, 1][:, 0], rtol=1e-5)
        np.testing.assert_allclose(found[:, 1:], runs[2, 1][:, 1:], rtol=1e-4)
        # Before clipping: together they are the norm of all.
        np.testing.assert_allclose(np.hypot(found[:, 2], found[:, 3]), found[:, 1], rtol=1e-5)
        assert (found[:, 1] > 0.02).all(), "so that clipping has done something"
    assert len(set(runs[2, 1][:, 0])) == 3


def test_each_group_moves_by_its_own_rate_and_rows_say_what_happened(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    rates = {"lr_unet": 1e-3, "lr_text_encoder": 1e-4}
    cfg = tiny_config(max_steps=1, warmup_steps=0, weight_decay=0.0, **rates)
    job = Job(tiny_bundle, tmp_path, cfg)
    assert train_ranks(job) == [0, 0]

    before, after = base_weights(tiny_bundle), read_weights(step_folder(job, 1), average=False)
    moved = {
        group: torch.cat(
            [(after[n] - before[n]).abs().flatten() for n in before if n.startswith(group)]
        )
        for group in ("unet", "text_encoder")
    }
    # AdamW's first step is the rate itself wherever there is a gradient (not for unseen tokens).
    for group, rate in (("unet", 1e-3), ("text_encoder", 1e-4)):
        assert moved[group][moved[group] > 0].median() == pytest.approx(rate, rel=0.05)

    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert (row["lr_unet"], row["lr_text_encoder"]) == (1e-3, 1e-4)
    assert row["grad_norm_unet"] > 0
    assert row["grad_norm_text_encoder"] > 0
    parts = [row[f"{part}_s"] for part in PARTS]
    assert min(parts) > 0
    assert sum(parts) <= row["step_s"]
    assert row["samples_per_s"] == pytest.approx(8 / row["step_s"])
    assert row["memory_gb"] > 0.05


@pytest.mark.parametrize("said", [0, 1])
def test_captions_longer_than_the_encoder_reads_are_counted(
    tiny_bundle: Path, tmp_path: Path, said: int
) -> None:
    samples = RandomTiles(n=8, said=said)
    [tokenizer] = load_bundle(tiny_bundle).tokenizers
    lengths = [len(tokenizer(samples.load(n, "sar.png")[1]).input_ids) for n in range(8)]
    long = sum(length > 16 for length in lengths)
    job = Job(tiny_bundle, tmp_path, tiny_config(max_steps=2, caption_dropout=0.0), samples=samples)
    assert train_ranks(job, 1) == [0]
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row.get("captions_cut", 0) for row in rows] == [long, long]
    assert long == 8 * said


@pytest.mark.parametrize(("stage", "precision"), [(2, "fp32"), (3, "bf16")])
def test_sharded_average_equals_the_average_of_full_parameters(
    tiny_bundle: Path, tmp_path: Path, stage: int, precision: str
) -> None:
    cfg = tiny_config(zero_stage=stage, precision=precision, max_steps=4, checkpoint_every_steps=1)
    job = Job(tiny_bundle, tmp_path, cfg, keep_every=1)
    assert train_ranks(job) == [0, 0]

    average = base_weights(tiny_bundle)
    for step in range(4):
        weights = read_weights(step_folder(job, step + 1), average=False)
        decay = ema_decay(cfg, step)
        average = {name: average[name].lerp(weights[name], 1 - decay) for name in average}
    sharded = read_weights(step_folder(job, 4), average=True)

    assert sharded.keys() == average.keys()
    # Vectorised and scalar ends of a lerp may round differently; a lost step would show at 1e-4.
    worst = max(float((sharded[name] - average[name]).abs().max()) for name in average)
    assert worst < 1e-7


def test_bf16_masters_start_from_the_unrounded_base(tiny_bundle: Path, tmp_path: Path) -> None:
    rates = {"lr_unet": 1e-12, "lr_text_encoder": 1e-12}
    cfg = tiny_config(zero_stage=1, precision="bf16", max_steps=1, **rates)
    job = Job(tiny_bundle, tmp_path, cfg)
    assert train_ranks(job) == [0, 0]

    weights = read_weights(step_folder(job, 1), average=False)
    for name, tensor in base_weights(tiny_bundle).items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-9)


def test_nan_ends_all_ranks_with_the_batch_reported_and_the_checkpoint_whole(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    tiles = RandomTiles(n=16, poisoned=5)
    cfg = tiny_config(max_steps=50, checkpoint_every_steps=1)
    job = Job(tiny_bundle, tmp_path, cfg, samples=tiles)

    assert train_ranks(job) == [3, 3]

    (report,) = tmp_path.glob("trouble_step_*.json")
    document = json.loads(report.read_text())
    keys = [key for rank in document["ranks"] for key in rank["keys"]]
    assert len(keys) == cfg.global_batch
    assert tiles.key(5) in keys
    assert [rank["loss"] for rank in document["ranks"]].count("nan") == 1
    saved = [int(path.name[5:]) for path in (tmp_path / "checkpoints").glob("step_*")]
    assert max(saved, default=0) == document["step"] - 1
