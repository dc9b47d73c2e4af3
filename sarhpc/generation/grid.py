"""A grid of images, prompts down and seeds across, for visual inspection of a model.

Columns may also interpolate between two seeds: spherically between their initial noises, since
points on the straight line have a smaller norm than noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarhpc.diffusion.unblocked_sampling import without_waiting
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.model import Pipeline, backbone_of, first_text_encoder


@dataclass(frozen=True)
class Column:
    """The initial noise of one column: that of a seed, or interpolated towards another's."""

    seed: int
    toward: int | None = None
    part: float = 0.0

    @property
    def title(self) -> str:
        """Its heading."""
        if self.toward is None:
            return f"seed {self.seed}"
        return f"{self.seed} to {self.toward}: {self.part:.2f}"


def columns(seeds: Sequence[int], between: int = 0) -> list[Column]:
    """A column for each seed, and `between` interpolated ones from each to the next."""
    found = []
    for index, seed in enumerate(seeds):
        found.append(Column(seed))
        if index + 1 < len(seeds):
            parts = (step / (between + 1) for step in range(1, between + 1))
            found += [Column(seed, seeds[index + 1], part) for part in parts]
    return found


def starting_noise(pipeline: Pipeline, column: Column, cfg: GenerateConfig) -> Tensor:
    """Initial noise (1, C, h, w) of a column, drawn on the CPU: the same on every device."""
    shape, reduction = backbone_of(pipeline).config, pipeline.vae_scale_factor
    side = int(shape.sample_size)
    height = cfg.height_px // reduction if cfg.height_px else side
    width = cfg.width_px // reduction if cfg.width_px else side

    def drawn(seed: int) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(1, shape.in_channels, height, width, generator=generator)

    start = drawn(column.seed)
    return start if column.toward is None else arc(start, drawn(column.toward), column.part)


def arc(start: Tensor, end: Tensor, part: float) -> Tensor:
    """Spherical interpolation by `part` from `start` to `end` (Shoemake, 1985)."""
    cosine = torch.nn.functional.cosine_similarity(start.flatten(), end.flatten(), dim=0)
    angle = torch.acos(cosine.clamp(-1, 1))
    if angle < 1e-4:
        return torch.lerp(start, end, part)
    ways = torch.sin((1 - part) * angle) * start + torch.sin(part * angle) * end
    return ways / torch.sin(angle)


@torch.no_grad()
def sample_grid(
    pipeline: Pipeline, cfg: GenerateConfig, prompts: Sequence[str], across: Sequence[Column]
) -> NDArray[np.uint8]:
    """Gray images (prompts, columns, H, W), each sampled as a batch of one."""
    rows = [
        [_gray(pipeline, cfg, prompt, starting_noise(pipeline, column, cfg)) for column in across]
        for prompt in prompts
    ]
    return np.array(rows)


def _gray(pipeline: Pipeline, cfg: GenerateConfig, prompt: str, noise: Tensor) -> NDArray[np.uint8]:
    image = pipeline(
        prompt=prompt,
        negative_prompt=cfg.negative_prompt,
        num_inference_steps=cfg.steps,
        guidance_scale=cfg.guidance,
        height=cfg.height_px,
        width=cfg.width_px,
        latents=without_waiting(noise.to(backbone_of(pipeline).dtype), pipeline.device),
        output_type="np",
    ).images[0]
    return np.asarray(np.round(image.mean(axis=2) * 255), np.uint8)


@torch.no_grad()
def prompt_similarity(pipeline: Pipeline, prompts: Sequence[str]) -> NDArray[np.float64]:
    """Cosine similarity of the text embeddings of each pair of prompts (P, P).

    The embedding is that of the end marker, which attends to the whole prompt.
    """
    tokenizer, encoder = first_text_encoder(pipeline)
    tokens = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
    pooled = encoder(tokens.input_ids.to(pipeline.device)).pooler_output
    unit = torch.nn.functional.normalize(pooled.double(), dim=1)
    cosines: NDArray[np.float64] = (unit @ unit.T).cpu().numpy()
    return cosines
