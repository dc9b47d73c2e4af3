"""The sampler, grids of a model and the evaluation's networks on the pretended GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from device import CUDA, counted
from loading import bundle
from tiny_bundle import CAPTIONS
from torch.utils._python_dispatch import _disable_current_modes

from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.embeddings import TextEmbeddings
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import ImageRequest
from sarhpc.generation.sampler import sample_images


def sample(*, xl: bool = False, **options: Any) -> dict[str, Any]:
    """Counts of the second batch of a shard, whose prompts are encoded already."""
    cfg = GenerateConfig(steps=4, batch=2, **options)
    pipeline = load_pipeline(bundle(xl=xl), cfg, device="cuda:0")
    embeddings = TextEmbeddings(pipeline, cfg.batch)
    requests = [ImageRequest(n, CAPTIONS[n], 7 + n) for n in range(2)]
    sample_images(pipeline, requests, cfg, cfg.batch, 1, embeddings=embeddings)
    with counted() as counts:
        images = sample_images(pipeline, requests, cfg, cfg.batch, 1, embeddings=embeddings)
    facts: dict[str, Any] = {"finite": bool(np.isfinite(images).all())}
    if cfg.dtype == "float32":
        with _disable_current_modes():
            pipeline = load_pipeline(bundle(xl=xl), cfg, device="cpu")
            on_cpu = sample_images(pipeline, requests, cfg, cfg.batch, 1)
        facts["from_cpu"] = float(np.abs(images - on_cpu).max())
    return {**counts.as_json(), **facts}


def grid() -> dict[str, Any]:
    """A grid of images, and how similar prompts are."""
    from sarhpc.generation.grid import columns, prompt_similarity, sample_grid

    cfg = GenerateConfig(steps=2, dtype="bfloat16")
    pipeline = load_pipeline(bundle(xl=False), cfg, device="cuda:0")
    with counted() as counts:
        images = sample_grid(pipeline, cfg, list(CAPTIONS[:1]), columns([0, 1], 1))
    similar = prompt_similarity(pipeline, CAPTIONS[:2])
    return {**counts.as_json(), "images": images.shape[1], "similar": similar.shape == (2, 2)}


def reconstruct_tiles() -> dict[str, Any]:
    """Tiles through the autoencoder, as the evaluation and the limits of the gate take them."""
    import torch

    from sarhpc.diffusion.autoencoder import reconstruct
    from sarhpc.diffusion.bundle import load_autoencoder
    from sarhpc.diffusion.crops import as_input

    model = load_autoencoder(bundle(xl=False) / "vae").to(CUDA)
    tiles = torch.stack([as_input(np.full((32, 32), 100, np.uint8))] * 2)
    with counted() as counts:
        made = reconstruct(model, tiles, 0)
    return {**counts.as_json(), "shape": list(made.shape), "device": str(made.device)}


GENERATION_DRIVES: Mapping[str, Callable[[], dict[str, Any]]] = {
    **{
        f"sample sd {scheduler}": lambda scheduler=scheduler: sample(
            scheduler=scheduler, dtype="bfloat16"
        )
        for scheduler in ("ddim", "euler", "dpmsolver", "pndm")
    },
    "sample sd fp16": lambda: sample(dtype="float16"),
    "sample sd fp32": lambda: sample(),
    "sample sdxl fp32": lambda: sample(xl=True),
    "sample sdxl rescaled": lambda: sample(xl=True, dtype="bfloat16", guidance_rescale=0.7),
    "sample sdxl fp16": lambda: sample(xl=True, dtype="float16", scheduler="euler"),
    "grid": grid,
    "evaluation autoencoder": reconstruct_tiles,
}
