"""The profile `sdxl_hybrid` on small models: U-Net in full, LoRA on both encoders, a learned token.

And SDXL, so or in full, at another number of ranks.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionXLPipeline
from tiny_bundle import paint
from training_ranks import Job, RadarTiles, contents, step_folder, tiny_config, train_ranks

from hpc.config import load
from sarhpc.diffusion.bundle import load_bundle
from sarhpc.diffusion.config import LORA_FILE
from sarhpc.stages.config import RunConfig
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.start import load_base
from sarhpc.training.export import export, with_weights
from sarhpc.training.metrics.log import read_rows

pytestmark = pytest.mark.slow

PROFILE = Path(__file__).resolve().parents[2] / "configs" / "sdxl_hybrid.yaml"
METHOD = ("lr_unet", "lr_text_encoder", "adapter", "token", "zero_stage", "precision")
STEPS = 3
PROMPT = "<SAR> image of a forest"


def profile() -> TrainConfig:
    """What the profile trains, and how; sizes and rhythm are those of the other tests."""
    told = load(RunConfig, PROFILE, ["archive.uri=/archive"]).train
    method = {name: getattr(told, name) for name in METHOD}
    rhythm = {"max_steps": STEPS, "warmup_steps": 0, "gradient_checkpointing": True}
    return tiny_config(**method, **rhythm, validation_prompts=[])


@pytest.fixture(scope="module")
def hybrid(tiny_xl_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("hybrid")
    job = Job(tiny_xl_bundle, root, profile(), samples=RadarTiles())
    assert train_ranks(job, 2) == [0, 0]
    return job


def test_unet_adapters_and_token_learn_at_the_rates_of_the_profile(hybrid: Job) -> None:
    row = read_rows(hybrid.root / "metrics.jsonl")[0]
    groups = ("unet", "text_encoder", "text_encoder_2", "token")
    assert [row[f"lr_{group}"] for group in groups] == [5e-5, 1e-4, 1e-4, 5e-4]
    assert all(row[f"grad_norm_{group}"] > 0 for group in groups)
    weights = read_weights(step_folder(hybrid, STEPS), average=True)
    unet = {f"unet.{name}" for name, _ in load_bundle(hybrid.base).backbone.named_parameters()}
    assert {name for name in weights if name.startswith("unet.")} == unet
    rest = weights.keys() - unet
    tokens = {name for name in rest if name.endswith(".learned")}
    assert len(tokens) == 2
    assert all("lora_" in name for name in rest - tokens)


def test_the_export_is_one_folder_that_the_stock_xl_pipeline_paints_from(
    hybrid: Job, tmp_path: Path
) -> None:
    weights = read_weights(step_folder(hybrid, STEPS), average=False)
    base = load_base(hybrid.cfg, hybrid.base)
    folder = export(step_folder(hybrid, STEPS), base, tmp_path / "model", {}, average=False)

    assert not (folder / LORA_FILE).exists()
    stock = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    for tokenizer in (stock.tokenizer, stock.tokenizer_2):
        assert len(tokenizer.tokenize("<SAR>")) == 1
    trained = with_weights(load_base(hybrid.cfg, hybrid.base), weights).pipeline()
    untrained = load_base(hybrid.cfg, hybrid.base).pipeline()
    wanted = paint(trained, PROMPT)
    assert np.allclose(paint(stock, PROMPT), wanted, atol=2e-3)
    assert np.abs(paint(untrained, PROMPT) - wanted).max() > 1e-4


@pytest.mark.parametrize(
    "is_hybrid", [True, pytest.param(False, marks=pytest.mark.long)], ids=["hybrid", "full"]
)
def test_one_rank_goes_on_where_two_stopped(
    tiny_xl_bundle: Path, tmp_path: Path, hybrid: Job, is_hybrid: bool
) -> None:
    whole = hybrid
    if not is_hybrid:
        cfg = tiny_config(max_steps=STEPS)
        whole = Job(tiny_xl_bundle, tmp_path / "whole", cfg)
        assert train_ranks(whole, 2) == [0, 0]
    for attempt, (world, steps) in enumerate([(2, 2), (1, STEPS)], 1):
        part = dataclasses.replace(whole.cfg, max_steps=steps)
        job = dataclasses.replace(whole, root=tmp_path / "parts", cfg=part, attempt=attempt)
        assert train_ranks(job, world) == [0] * world
    ends = [contents(step_folder(each, STEPS))["state"]["cursor"] for each in (whole, job)]
    assert ends[0] == ends[1]
    # The order of sums differs, in bf16 by more.
    found = [[row["loss"] for row in read_rows(j.root / "metrics.jsonl")] for j in (job, whole)]
    assert found[0] == pytest.approx(found[1], rel=1e-2 if is_hybrid else 1e-5)
    ours, others = (read_weights(step_folder(each, STEPS), average=False) for each in (job, whole))
    assert ours.keys() == others.keys()
    apart = max(float((ours[name] - others[name]).abs().mean()) for name in ours)
    assert apart < (1e-4 if is_hybrid else 1e-6)
