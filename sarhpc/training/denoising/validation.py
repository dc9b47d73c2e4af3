"""Validation grids: fixed prompts and seeds sampled at intervals (the paper's figure 5)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor

from hpc.job.agreement import RankGroup
from hpc.publish import publishing
from sarhpc.diffusion.bundle import Bundle
from sarhpc.diffusion.config import LAYERS
from sarhpc.diffusion.unblocked_sampling import starting_noise, step_on_cpu, unblock
from sarhpc.shards.pictures import read_picture
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising import grids
from sarhpc.training.denoising.data import Samples
from sarhpc.training.denoising.grids import GridImage
from sarhpc.training.denoising.progress import draw_progress
from sarhpc.training.denoising.start import load_base
from sarhpc.training.export import with_weights
from sarhpc.training.schedule import Length
from sarhpc.training.task import Weights

_log = logging.getLogger(__name__)


class Judge(Protocol):
    """Compares sampled images with real ones."""

    def __call__(self, sampled: NDArray[np.uint8], /) -> dict[str, float] | None:
        """Distances of images (N, H, W), and their `score`: less is better. Not collective.

        None where they cannot be compared, as one is constant.
        """


@dataclass(frozen=True)
class Grids:
    """The validation grids of a training: when they are due, and how they are made."""

    cfg: TrainConfig
    base: Path
    length: Length
    samples: Samples
    ranks: RankGroup
    folder: Path
    """Receives images, index and the picture of all grids."""
    judge: Judge | None
    """Judges each grid, on rank 0; None judges none."""

    def is_due(self, step: int) -> bool:
        """Whether a grid belongs to `step` and is not in the index yet."""
        return self._has_grid(step) and not grids.is_finished(self.folder, step)

    def is_judged(self, step: int) -> bool:
        """Whether a grid belongs to `step` and is judged; its checkpoint may be chosen then."""
        return self.judge is not None and self._has_grid(step)

    def sample(self, step: int, weights: Weights) -> Iterator[None]:
        """Sample the grid of `step`; a step of the iterator for each image of a rank. Collective.

        The index names the grid when all images are there.
        """
        images = grids.planned(self.cfg, step, self.length.epoch(step))
        bundle = with_weights(load_base(self.cfg, self.base), weights())
        yield from sample_images(self.cfg, bundle, images, self.folder, self.ranks, self.samples)
        self.ranks.barrier()
        if self.ranks.rank == 0:
            draw_progress(self.cfg, self.folder, images)
            grids.enter_in_index(self.folder, images, self._judged(step, images))
        self.ranks.barrier()

    def _judged(self, step: int, images: list[GridImage]) -> dict[str, float] | None:
        if self.judge is None:
            return None
        found = self.judge(read_images(self.folder, images))
        if found is not None:
            _log.info("grid step=%d %s", step, " ".join(f"{k}={v:.4g}" for k, v in found.items()))
        return found

    def _has_grid(self, step: int) -> bool:
        every = self.cfg.validation_every_steps
        if every == 0 or not self.cfg.validation_prompts:
            return False
        ends = step in (0, self.length.steps)
        regular = self.length.ends_epoch(step) if every is None else step % every == 0
        return ends or regular


def sample_images(
    cfg: TrainConfig,
    bundle: Bundle,
    images: list[GridImage],
    folder: Path,
    ranks: RankGroup,
    samples: Samples,
) -> Iterator[None]:
    """Sample this rank's part of `images`, one at each step of the iterator.

    Every rank takes the same number of steps, so that ranks can agree on a stop in between. Each
    image is a batch of its own with a CPU generator: the number of ranks does not change it. A
    ControlNet is steered by the layer of the sample whose number is the image's seed.
    """
    pipeline = _pipeline(cfg, bundle, ranks.device)
    for first in range(0, len(images), ranks.world):
        if first + ranks.rank < len(images):
            image = images[first + ranks.rank]
            _sample_one(cfg, pipeline, image, folder, _steering(cfg, samples, image.seed))
        yield


def read_images(folder: Path, images: list[GridImage]) -> NDArray[np.uint8]:
    """The images of a finished grid in gray (N, H, W)."""
    return np.stack([read_picture(folder / image.path, "L") for image in images])


def _pipeline(cfg: TrainConfig, bundle: Bundle, device: torch.device) -> Any:
    pipeline: Any = bundle.pipeline()
    pipeline.scheduler = step_on_cpu(DDIMScheduler.from_config(bundle.scheduler.config))
    pipeline.set_progress_bar_config(disable=True)
    if device.type == "cpu":
        return pipeline
    dtype = torch.bfloat16 if cfg.precision == "bf16" else torch.float32
    return unblock(pipeline.to(device, dtype))


def _steering(cfg: TrainConfig, samples: Samples, seed: int) -> dict[str, Tensor]:
    if cfg.control is None:
        return {}
    layer, _ = samples.load(seed % len(samples), LAYERS[cfg.control.layer])
    return {"image": torch.from_numpy((layer + 1) / 2).permute(2, 0, 1)[None]}


@torch.no_grad()
def _sample_one(
    cfg: TrainConfig, pipeline: Any, image: GridImage, folder: Path, steering: dict[str, Tensor]
) -> None:
    generator = torch.Generator("cpu").manual_seed(image.seed)
    sampled = pipeline(
        image.prompt,
        num_inference_steps=cfg.validation_steps,
        guidance_scale=cfg.validation_guidance,
        generator=generator,
        latents=starting_noise(pipeline, [generator], (cfg.image_px, cfg.image_px)),
        height=cfg.image_px,
        width=cfg.image_px,
        **steering,
    ).images[0]
    with publishing(folder / image.path) as file:
        sampled.save(file, format="PNG")
