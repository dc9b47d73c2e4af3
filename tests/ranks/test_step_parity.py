"""One step of the engine is the step a reader of the papers would write with stock diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from training_ranks import Job, RandomTiles, step_folder, tiny_config, train_ranks

from sarhpc.diffusion.config import ObjectiveConfig
from sarhpc.diffusion.objective import draw
from sarhpc.shards.loader import Cursor, SampleOrder, batches
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.config import TrainConfig
from sarhpc.training.metrics.log import read_rows

pytestmark = pytest.mark.slow

RATES = {"unet": 1e-2, "text_encoder": 3e-3, "text_encoder_2": 1e-3}


def parity_config(**changes: Any) -> TrainConfig:
    """One step; the large epsilon keeps AdamW from turning rounding into the sign of a step."""
    rates: dict[str, Any] = {"lr_unet": RATES["unet"], "lr_text_encoder": RATES["text_encoder"]}
    settings = {"max_steps": 1, "warmup_steps": 0, "adam_epsilon": 1e-2, "weight_decay": 0.1}
    return tiny_config(**{**settings, **rates, "caption_dropout": 0.3, **changes})


def first_batch(cfg: TrainConfig, samples: RandomTiles) -> list[int]:
    _, numbers = next(batches(SampleOrder(cfg.seed, len(samples)), Cursor(), cfg.global_batch))
    return list(numbers)


def hand_written_loss(pipeline: Any, cfg: TrainConfig, samples: RandomTiles) -> torch.Tensor:
    """The loss of the first batch, by the stock pipeline's own encoders and scheduler."""
    numbers = first_batch(cfg, samples)
    loaded = [samples.load(number, cfg.image_member) for number in numbers]
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in loaded])
    objective = ObjectiveConfig(cfg.caption_dropout)
    keys = [samples.key(number) for number in numbers]
    choices = draw(keys, seed=cfg.seed, epoch=0, shape=(4, 4, 4), cfg=objective)
    assert any(choices.dropped)
    assert not all(choices.dropped)
    captions = [
        "" if drop else text for (_, text), drop in zip(loaded, choices.dropped, strict=True)
    ]

    posterior = pipeline.vae.encode(images).latent_dist
    latents = posterior.mean + posterior.std * choices.latent_noise
    latents = (latents * pipeline.vae.config.scaling_factor).detach()
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    noisy = scheduler.add_noise(latents, choices.noise, choices.timesteps)
    text, *others = pipeline.encode_prompt(
        captions, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    added = None
    if hasattr(pipeline, "text_encoder_2"):
        pooled, side = others[1], images.shape[-1]
        sizes = torch.tensor([[side, side, 0, 0, side, side]] * len(captions))
        added = {"text_embeds": pooled, "time_ids": sizes}
    prediction = pipeline.unet(
        noisy, choices.timesteps, encoder_hidden_states=text, added_cond_kwargs=added
    ).sample
    return torch.nn.functional.mse_loss(prediction, choices.noise)


def hand_written_step(
    base: Path, cfg: TrainConfig, samples: RandomTiles
) -> tuple[float, dict[str, float], dict[str, torch.Tensor]]:
    """Loss, gradient norms and weights after one step of plain torch on a stock pipeline."""
    pipeline = DiffusionPipeline.from_pretrained(base, local_files_only=True)
    parts = {name: getattr(pipeline, name) for name in RATES if hasattr(pipeline, name)}
    loss = hand_written_loss(pipeline, cfg, samples)
    loss.backward()
    parameters = {
        f"{part}.{name}": parameter
        for part, model in parts.items()
        for name, parameter in model.named_parameters()
    }
    with_gradient = [p for p in parameters.values() if p.grad is not None]
    norms = {
        f"grad_norm_{part}": float(
            torch.nn.utils.get_total_norm(
                [p.grad for p in model.parameters() if p.grad is not None]
            )
        )
        for part, model in parts.items()
    }
    norms["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(with_gradient, cfg.grad_clip))
    beta1, beta2 = cfg.betas
    torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.grad is not None], "lr": RATES[part]}
            for part, model in parts.items()
        ],
        betas=(beta1, beta2),
        eps=cfg.adam_epsilon,
        weight_decay=cfg.weight_decay,
    ).step()
    return float(loss.detach()), norms, {n: p.detach() for n, p in parameters.items()}


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_step_on_two_ranks_is_the_hand_written_step(
    tiny_bundle: Path, tiny_xl_bundle: Path, tmp_path: Path, kind: str
) -> None:
    base = tiny_xl_bundle if kind == "sdxl" else tiny_bundle
    second = {"lr_text_encoder_2": RATES["text_encoder_2"]} if kind == "sdxl" else {}
    job = Job(base, tmp_path, parity_config(zero_stage=2, **second))
    assert train_ranks(job) == [0, 0]

    loss, norms, wanted = hand_written_step(base, job.cfg, job.samples)
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert row["loss"] == pytest.approx(loss, rel=1e-5)
    assert {name: row[name] for name in norms} == pytest.approx(norms, rel=1e-4)
    found = read_weights(step_folder(job, 1), average=False)
    base_weights = DiffusionPipeline.from_pretrained(base, local_files_only=True)
    for name, weight in wanted.items():
        part, _, inner = name.partition(".")
        before = dict(getattr(base_weights, part).named_parameters())[inner]
        if torch.equal(weight, before):
            assert name not in found or torch.equal(found[name], before), name
        else:
            torch.testing.assert_close(found[name], weight, rtol=0, atol=RATES[part] * 1e-3)
    moved = {name.partition(".")[0] for name in found}
    assert moved == {name.partition(".")[0] for name in wanted}
