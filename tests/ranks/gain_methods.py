"""The methods of training whose gains are measured: each trained once, and what it then paints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from diffusers import DDIMScheduler
from gains import BASE, TOKEN, tiles
from numpy.typing import NDArray
from training_ranks import Job, step_folder, tiny_config, train_ranks

from hpc.store.rundir import RunDir
from sarhpc.diffusion.bundle import Bundle
from sarhpc.diffusion.config import AdapterConfig, ControlConfig, TokenConfig
from sarhpc.generation.config import GenerateConfig, SteerConfig
from sarhpc.generation.plan import ImageRequest
from sarhpc.generation.sampler import sample_images
from sarhpc.generation.steering import SteeringLayers
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.start import load_base
from sarhpc.training.export import with_weights

STEPS = 60
PAINTED = 48
"""Held-out tiles whose captions are painted, evenly from all of them."""
_BATCH = 16

FULL = {"lr_unet": 3e-4, "lr_text_encoder": 1e-4}
LOW_RANK = {"lr_unet": 3e-3, "lr_text_encoder": 1e-3}
METHODS: Mapping[str, dict[str, Any]] = {
    "full": FULL,
    **{
        kind: {"adapter": AdapterConfig(kind=kind, rank=8), **LOW_RANK}
        for kind in ("lora", "locon", "loha", "lokr", "dylora")
    },
    "token": {"token": TokenConfig(lr=5e-3), "lr_unet": 0.0, "lr_text_encoder": 0.0},
    "controlnet": {"control": ControlConfig("edges", lr=3e-4)},
}


WHOLE = tuple(name for name in METHODS if name not in ("token", "controlnet"))
"""Methods that teach the base radar tiles as such, by all their captions."""


def together(*methods: str) -> list[Any]:
    """Parameters whose tests run in one process, so that a method is trained once for all."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(f"gains-{name}")) for name in methods]


def trained(
    run: RunDir, name: str, seed: int, changes: Mapping[str, Any], steps: int = STEPS
) -> Bundle:
    """The base after `steps` steps of a method, trained when it is first asked for.

    What was trained for fewer steps under this name and seed goes on from there.
    """
    cfg: TrainConfig = tiny_config(
        **{
            "max_steps": steps, "epochs": 1000, "global_batch": 8, "micro_batch": 8,
            "warmup_steps": 10, "ema_decay": 0.0, "cache_latents": True, "seed": seed,
            "checkpoint_every_s": 1e9, "weight_decay": 0.0, **changes,
        }
    )  # fmt: skip
    begins = TOKEN if cfg.token is None else f"{cfg.token.text} image of"
    root = run.root.parent / "trained" / f"{name}-{seed}"
    job = Job(BASE, root, cfg, attempt=steps, samples=tiles(run, "train", begins))
    if not step_folder(job, steps).exists():
        assert train_ranks(job, world=1, timeout_s=1800) == [0]
    weights = read_weights(step_folder(job, steps), average=False)
    return with_weights(load_base(cfg, BASE), weights)


def painted_numbers(run: RunDir) -> list[int]:
    """Numbers of the held-out tiles whose captions are painted."""
    return [int(n) for n in np.linspace(0, len(tiles(run, "val")) - 1, PAINTED)]


def paint(run: RunDir, bundle: Bundle) -> NDArray[np.uint8]:
    """Gray images (PAINTED, H, W) of held-out captions from noise that is the same for all models.

    A model with a ControlNet is steered by the edges of the very tiles whose captions it reads.
    """
    held_out, numbers = tiles(run, "val"), painted_numbers(run)
    steer = SteerConfig(layer="edges") if bundle.controlnet is not None else None
    cfg = GenerateConfig(
        steps=20, guidance=4.0, batch=_BATCH, steer=steer, height_px=128, width_px=128
    )
    layers = None if steer is None else SteeringLayers(held_out.shards, steer)
    for model in bundle.models.values():
        model.eval()
    pipeline = bundle.pipeline()
    pipeline.scheduler = DDIMScheduler.from_config(bundle.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    images = []
    for start in range(0, PAINTED, _BATCH):
        part = numbers[start : start + _BATCH]
        asked = [ImageRequest(n, held_out.load(n, "sar.png")[1], seed=n) for n in part]
        steers = () if layers is None else [layers.load(n) for n in part]
        images.append(sample_images(pipeline, asked, cfg, _BATCH, threads=1, steers=steers))
    return np.round(np.concatenate(images).mean(axis=3) * 255).astype(np.uint8)
