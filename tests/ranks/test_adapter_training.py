"""Adapters in the DeepSpeed engine: every ZeRO stage, exact resume, and what diffusers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from tiny_bundle import paint
from training_ranks import (
    Job,
    contents,
    differences,
    step_folder,
    tiny_config,
    train_ranks,
)

from sarhpc.diffusion.bundle import load_bundle
from sarhpc.diffusion.config import LORA_FILE, AdapterConfig
from sarhpc.diffusion.dylora import truncate
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.denoising.start import load_base
from sarhpc.training.export import export, with_weights
from sarhpc.training.metrics.log import read_rows

pytestmark = pytest.mark.slow

PROMPT = "a forest beside a river"


def adapter_config(kind: str = "lora", **changes: Any) -> Any:
    adapter = changes.pop("adapter", AdapterConfig(kind=kind, rank=4, alpha=8.0))
    rates = {"lr_unet": 1e-2, "lr_text_encoder": 1e-2}
    return tiny_config(adapter=adapter, **{**rates, **changes})


def load(folder: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)


def weight_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("unet", "text_encoder", "vae")
        for path in (folder / part).iterdir()
    }


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("lora", {"zero_stage": 1, "precision": "bf16", "gradient_checkpointing": True}),
        ("dylora", {"zero_stage": 2, "gradient_checkpointing": True}),
        # Three times the arithmetic; test_prior_and_token.py kills an adapter under ZeRO-3.
        pytest.param("lora", {"zero_stage": 3}, marks=pytest.mark.long),
        # Other layers, the same engine: tests/unit/diffusion/test_adapter.py proves the layers.
        pytest.param("locon", {"zero_stage": 2}, marks=pytest.mark.long),
        pytest.param("loha", {"zero_stage": 2}, marks=pytest.mark.long),
        pytest.param("lokr", {"zero_stage": 2}, marks=pytest.mark.long),
        pytest.param("lokr", {"zero_stage": 3}, marks=pytest.mark.long),
        pytest.param("dylora", {"zero_stage": 3}, marks=pytest.mark.long),
    ],
)
def test_adapter_killed_and_resumed_equals_the_undisturbed_one(
    tiny_bundle: Path, tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    changes |= {"max_steps": 4, "checkpoint_every_steps": 2}
    whole = Job(tiny_bundle, tmp_path / "whole", adapter_config(kind, **changes))
    assert train_ranks(whole) == [0, 0]
    faults = {1: "training.after_step:3:kill"}
    killed = Job(tiny_bundle, tmp_path / "killed", whole.cfg, faults=faults)
    assert -9 in train_ranks(killed)
    assert not step_folder(killed, 4).exists()
    resumed = Job(tiny_bundle, tmp_path / "killed", whole.cfg, attempt=2)
    assert train_ranks(resumed) == [0, 0]

    assert differences(contents(step_folder(whole, 4)), contents(step_folder(resumed, 4))) == []
    weights = read_weights(step_folder(whole, 4), average=False)
    assert all("lora_" in name or "hada_" in name or "lokr_" in name for name in weights)
    assert {name.partition(".")[0] for name in weights} == {"unet", "text_encoder"}


def test_a_dylora_is_exported_at_a_smaller_rank_that_the_stock_pipeline_loads(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    cfg = adapter_config("dylora", zero_stage=2, max_steps=2)
    job = Job(tiny_bundle, tmp_path / "run", cfg)
    assert train_ranks(job) == [0, 0]
    painted = {}
    for rank in (4, 1):
        base = load_base(cfg, tiny_bundle)
        cut, out = (cfg.adapter, rank), tmp_path / f"{rank}"
        folder = export(step_folder(job, 2), base, out, {}, average=False, cut=cut)
        held = load_file(folder / LORA_FILE)
        assert {t.shape[0] for name, t in held.items() if "lora_A" in name} == {rank}
        pipeline = load(folder)
        pipeline.load_lora_weights(folder, local_files_only=True)
        painted[rank] = paint(pipeline, PROMPT)
        weights = read_weights(step_folder(job, 2), average=False)
        ours = with_weights(load_base(cfg, tiny_bundle), weights)
        truncate(ours.models, cfg.adapter, rank)
        assert np.allclose(painted[rank], paint(ours.pipeline(), PROMPT), atol=2e-3)
    assert np.abs(painted[4] - painted[1]).max() > 1e-4


def test_losses_of_an_adapter_do_not_depend_on_the_stage(tiny_bundle: Path, tmp_path: Path) -> None:
    found = {}
    for stage in (1, 2, 3):
        job = Job(tiny_bundle, tmp_path / f"{stage}", adapter_config(zero_stage=stage, max_steps=3))
        assert train_ranks(job) == [0, 0]
        found[stage] = [row["loss"] for row in read_rows(job.root / "metrics.jsonl")]
    for losses in found.values():
        assert losses == pytest.approx(found[2], rel=1e-5)
    assert len(set(found[2])) == 3


def test_full_unet_beside_an_adapted_text_encoder_is_one_folded_model(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    cfg = adapter_config(adapter=AdapterConfig(rank=4, unet=False), lr_unet=1e-3, max_steps=2)
    job = Job(tiny_bundle, tmp_path / "run", cfg)
    assert train_ranks(job) == [0, 0]
    weights = read_weights(step_folder(job, 2), average=False)
    full = {f"unet.{name}" for name, _ in load_bundle(tiny_bundle).backbone.named_parameters()}
    assert {name for name in weights if name.startswith("unet.")} == full
    assert all("lora_" in name for name in weights.keys() - full)

    folder = export(
        step_folder(job, 2), load_base(cfg, tiny_bundle), tmp_path / "m", {}, average=False
    )
    assert not (folder / LORA_FILE).exists()
    wanted = paint(with_weights(load_base(cfg, tiny_bundle), weights).pipeline(), PROMPT)
    assert np.allclose(paint(load(folder), PROMPT), wanted, atol=2e-3)


def test_a_rate_of_zero_leaves_that_model_as_it_is(tiny_bundle: Path, tmp_path: Path) -> None:
    cfg = tiny_config(lr_text_encoder=0.0, max_steps=1)
    job = Job(tiny_bundle, tmp_path / "run", cfg)
    assert train_ranks(job) == [0, 0]
    assert "lr_text_encoder" not in read_rows(job.root / "metrics.jsonl")[0]
    folder = export(
        step_folder(job, 1), load_base(cfg, tiny_bundle), tmp_path / "m", {}, average=False
    )
    ours, base = weight_files(folder), weight_files(tiny_bundle)
    name = "text_encoder/model.safetensors"
    assert ours[name] == base[name]
    name = "unet/diffusion_pytorch_model.safetensors"
    assert ours[name] != base[name]
