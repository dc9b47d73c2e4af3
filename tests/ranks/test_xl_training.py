"""SDXL through the engine: three groups, exact resume, and a folder the stock pipeline loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from test_exact_resume import assert_same_end, run_with_kill
from training_ranks import Job, step_folder, tiny_config, train_ranks

from hpc.errors import ConfigError
from sarhpc.diffusion.bundle import load_bundle
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.model import load_pipeline
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.denoising.grids import read_index
from sarhpc.training.denoising.start import load_base
from sarhpc.training.export import export
from sarhpc.training.metrics.log import read_rows

pytestmark = pytest.mark.slow

UNREAD = ("encoder.layers.1.", "final_layer_norm.")
"""What the prediction does not depend on: the end of the first text encoder."""


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"zero_stage": 2, "cache_latents": True}, id="zero2"),
        pytest.param(
            {"zero_stage": 1, "precision": "bf16", "gradient_checkpointing": True},
            id="zero1-bf16",
            marks=pytest.mark.long,
        ),
        pytest.param({"zero_stage": 3}, id="zero3", marks=pytest.mark.long),
    ],
)
def test_killed_and_resumed_equals_undisturbed(
    tiny_xl_bundle: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    faults = {1: "training.after_step:3:kill"}
    whole, resumed = run_with_kill(tiny_xl_bundle, tmp_path, faults, steps=4, every=2, **changes)
    assert_same_end(whole, resumed, 4)


@pytest.fixture(scope="module")
def trained(tiny_xl_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Two steps of ZeRO-2 on two ranks, with a rate of its own for each model, and grids."""
    cfg = tiny_config(max_steps=2, warmup_steps=0, lr_text_encoder_2=3e-5, validation_every_steps=2)
    job = Job(tiny_xl_bundle, tmp_path_factory.mktemp("trained_xl"), cfg)
    assert train_ranks(job) == [0, 0]
    return job


def test_three_groups_learn_at_their_own_rates(trained: Job) -> None:
    row = read_rows(trained.root / "metrics.jsonl")[0]
    rates = [row[f"lr_{group}"] for group in ("unet", "text_encoder", "text_encoder_2")]
    assert rates == [1e-3, 1e-4, 3e-5]
    for group in ("unet", "text_encoder", "text_encoder_2"):
        assert row[f"grad_norm_{group}"] > 0


def test_the_second_encoder_takes_the_rate_of_the_first_unless_told(
    tiny_xl_bundle: Path, tmp_path: Path
) -> None:
    job = Job(tiny_xl_bundle, tmp_path, tiny_config(max_steps=1, warmup_steps=0))
    assert train_ranks(job) == [0, 0]
    assert read_rows(tmp_path / "metrics.jsonl")[0]["lr_text_encoder_2"] == 1e-4


def test_a_rate_for_a_second_encoder_that_is_not_there_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr_text_encoder_2=.* one text encoder"):
        load_base(tiny_config(lr_text_encoder_2=1e-5), tiny_bundle)


@pytest.mark.parametrize("average", [True, False])
def test_export_equals_the_checkpoint_and_loads_in_the_stock_xl_pipeline(
    trained: Job, tmp_path: Path, average: bool
) -> None:
    checkpoint = step_folder(trained, 2)
    base = load_base(trained.cfg, trained.base)
    folder = export(checkpoint, base, tmp_path / "model", {"base_model": "tiny"}, average=average)

    weights = read_weights(checkpoint, average=average)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    before = load_bundle(trained.base)
    for part, model in before.models.items():
        untouched = dict(model.named_parameters())
        for name, parameter in getattr(pipeline, part).named_parameters():
            still = part == "text_encoder" and any(mark in name for mark in UNREAD)
            assert (f"{part}.{name}" in weights) != still, name
            wanted = untouched[name] if still else weights[f"{part}.{name}"]
            assert torch.equal(parameter, wanted), name
    image = pipeline("a forest", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (32, 32, 3)
    assert np.isfinite(image).all()


def test_the_exported_folder_generates(trained: Job, tmp_path: Path) -> None:
    base = load_base(trained.cfg, trained.base)
    folder = export(step_folder(trained, 2), base, tmp_path / "model", {}, average=True)
    pipeline = load_pipeline(folder, GenerateConfig(), "cpu")
    assert isinstance(pipeline, StableDiffusionXLPipeline)


def test_grids_are_painted_by_the_xl_pipeline(trained: Job) -> None:
    images = read_index(trained.root / "validation")
    assert [image["step"] for image in images] == [0, 0, 2, 2]
    pixels = [
        np.asarray(Image.open(trained.root / "validation" / image["path"])).astype(int)
        for image in images
    ]
    assert {array.shape for array in pixels} == {(32, 32, 3)}
    assert np.abs(pixels[0] - pixels[2]).max() > 0
