"""ControlNet training: zero at the start, a hand-written step, exact resume, stock loaders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDPMScheduler,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
)
from test_exact_resume import assert_same_end, run_with_kill
from test_step_parity import first_batch
from training_ranks import Job, RandomTiles, step_folder, tiny_config, train_ranks

from hpc.errors import ConfigError
from sarhpc.diffusion.bundle import load_bundle
from sarhpc.diffusion.conditioning import size_ids, tokenize
from sarhpc.diffusion.config import AdapterConfig, ControlConfig, ObjectiveConfig
from sarhpc.diffusion.control import new_controlnet, predict_with_controlnet
from sarhpc.diffusion.objective import draw
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.config import TrainConfig
from sarhpc.training.config_checks import check
from sarhpc.training.denoising.start import load_base
from sarhpc.training.export import export
from sarhpc.training.metrics.log import read_rows

RATE = 1e-2


@dataclass(frozen=True)
class SteeredTiles(RandomTiles):
    """Random tiles with a random sketch each."""

    def load(self, number: int, image_member: str) -> tuple[Any, str]:
        image, caption = super().load(number, image_member)
        if image_member != "edges.png":
            return image, caption
        sketch = np.random.default_rng(1000 + number).uniform(-1, 1, (self.px, self.px, 1))
        return sketch.repeat(3, axis=2).astype(np.float32), caption


def control_config(**changes: Any) -> TrainConfig:
    settings = {"max_steps": 2, "control": ControlConfig("edges", lr=RATE), "zero_stage": 2}
    return tiny_config(**{**settings, **changes})


def tiles(job: Job) -> Job:
    return Job(job.base, job.root, job.cfg, samples=SteeredTiles())


def test_an_untrained_controlnet_changes_nothing(tiny_bundle: Path, tiny_xl_bundle: Path) -> None:
    for base in (tiny_bundle, tiny_xl_bundle):
        bundle = load_bundle(base)
        controlnet = new_controlnet(bundle.backbone, seed=0)
        conditions = [tokenize(tokenizer, ["a forest"]) for tokenizer in bundle.tokenizers]
        if bundle.family.size_ids:
            conditions.append(size_ids(1, 32, 32))
        context, added = bundle.family.condition(bundle.encoders, conditions)
        noisy, timesteps = torch.randn(1, 4, 4, 4), torch.tensor([400])
        layer = torch.rand(1, 3, 32, 32)
        plain = bundle.backbone(
            noisy, timesteps, encoder_hidden_states=context, added_cond_kwargs=added
        ).sample
        found = predict_with_controlnet(
            bundle.backbone, controlnet, noisy, timesteps, context, added, layer
        )
        assert torch.equal(found, plain)


def hand_written_step(base: Path, cfg: TrainConfig) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and ControlNet after one step of plain torch on stock diffusers parts."""
    pipeline: Any = DiffusionPipeline.from_pretrained(base, local_files_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        controlnet = ControlNetModel.from_unet(pipeline.unet)
    pipeline.unet.requires_grad_(False)
    samples = SteeredTiles()
    numbers = first_batch(cfg, samples)
    loaded = [samples.load(number, cfg.image_member) for number in numbers]
    images, sketches = (
        torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in found])
        for found in (loaded, [samples.load(number, "edges.png") for number in numbers])
    )
    keys = [samples.key(number) for number in numbers]
    choices = draw(keys, seed=cfg.seed, epoch=0, shape=(4, 4, 4), cfg=ObjectiveConfig(0.1))
    captions = [
        "" if drop else text for (_, text), drop in zip(loaded, choices.dropped, strict=True)
    ]
    with torch.no_grad():
        posterior = pipeline.vae.encode(images).latent_dist
        latents = posterior.mean + posterior.std * choices.latent_noise
        latents = latents * pipeline.vae.config.scaling_factor
        context, _ = pipeline.encode_prompt(captions, "cpu", 1, False)
    noisy = DDPMScheduler.from_config(pipeline.scheduler.config).add_noise(
        latents, choices.noise, choices.timesteps
    )
    down, middle = controlnet(
        noisy, choices.timesteps, context, (sketches + 1) / 2, return_dict=False
    )
    prediction = pipeline.unet(
        noisy,
        choices.timesteps,
        context,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    loss = torch.nn.functional.mse_loss(prediction, choices.noise)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(controlnet.parameters(), cfg.grad_clip)
    torch.optim.AdamW(
        controlnet.parameters(), lr=RATE, eps=cfg.adam_epsilon, weight_decay=cfg.weight_decay
    ).step()
    return float(loss.detach()), dict(controlnet.named_parameters())


@pytest.mark.slow
def test_a_step_is_the_hand_written_step_and_the_unet_stands_still(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    cfg = control_config(max_steps=1, warmup_steps=0, adam_epsilon=1e-2, weight_decay=0.1)
    job = tiles(Job(tiny_bundle, tmp_path, cfg))
    assert train_ranks(job) == [0, 0]
    loss, wanted = hand_written_step(tiny_bundle, cfg)
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert row["loss"] == pytest.approx(loss, rel=1e-5)
    assert row["lr_controlnet"] == RATE
    found = read_weights(step_folder(job, 1), average=False)
    assert found.keys() == {f"controlnet.{name}" for name in wanted}
    for name, weight in wanted.items():
        torch.testing.assert_close(
            found[f"controlnet.{name}"], weight.detach(), rtol=0, atol=RATE * 1e-3
        )


@pytest.mark.slow
def test_a_killed_training_under_zero_2_resumes_to_the_bit(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    whole, resumed = run_with_kill(
        tiny_bundle,
        tmp_path,
        {1: "training.after_step:2:kill"},
        steps=3,
        every=1,
        samples=SteeredTiles(),
        zero_stage=2,
        azimuth_flip=True,
        control=ControlConfig(lr=RATE),
        validation_every_steps=3,
    )
    assert_same_end(whole, resumed, 3)
    assert (resumed.root / "validation" / "index.json").exists()


@pytest.mark.slow
def test_the_export_is_a_stock_controlnet_pipeline(tiny_bundle: Path, tmp_path: Path) -> None:
    job = tiles(Job(tiny_bundle, tmp_path, control_config()))
    assert train_ranks(job) == [0, 0]
    base = load_base(job.cfg, tiny_bundle)
    folder = export(step_folder(job, 2), base, tmp_path / "model", {}, average=False)
    pipeline: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert type(pipeline) is StableDiffusionControlNetPipeline
    alone = ControlNetModel.from_pretrained(folder / "controlnet", local_files_only=True)
    weights = read_weights(step_folder(job, 2), average=False)
    for name, parameter in alone.named_parameters():
        assert torch.equal(parameter, weights[f"controlnet.{name}"])
    for part in ("unet", "text_encoder"):
        before = dict(load_bundle(tiny_bundle).models[part].named_parameters())
        for name, parameter in getattr(pipeline, part).named_parameters():
            assert torch.equal(parameter, before[name]), name
    pictures = [
        pipeline(
            "a forest",
            image=torch.full((1, 3, 32, 32), value),
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images
        for value in (0.0, 1.0)
    ]
    assert np.abs(pictures[0] - pictures[1]).max() > 0, "the layer steers"
    assert "image=layer" in (folder / "README.md").read_text()


def test_a_controlnet_with_an_adapter_or_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="trained alone"):
        check(control_config(adapter=AdapterConfig()))
    with pytest.raises(ConfigError, match=r"control\.layer='sketch'"):
        check(control_config(control=ControlConfig("sketch")))
