"""Validation grids: fixed prompts and seeds painted at intervals (the paper's figure 5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hpc.publish import publishing
from sarhpc.diffusion.bundle import Bundle
from sarhpc.diffusion.config import LAYERS
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.data import Samples
from sarhpc.training.denoising.grids import GridImage
from sarhpc.training.ranks import Ranks


class Stop(Protocol):
    """Why the ranks interrupt their work."""

    @property
    def name(self) -> str:
        """The reason in a word."""

    @property
    def stops(self) -> bool:
        """Whether the work ends after the save."""

    @property
    def requeues(self) -> bool:
        """Whether the job asks to be queued again after the save."""


class StopRequest(Protocol):
    """The wish to stop, agreed on by all ranks."""

    def agree(self) -> Stop | None:
        """The reason to interrupt now, the same on every rank. Collective."""


def paint(
    cfg: TrainConfig,
    bundle: Bundle,
    images: list[GridImage],
    folder: Path,
    ranks: Ranks,
    samples: Samples,
) -> Iterator[None]:
    """Paint this rank's share of `images`, one at each step of the iterator.

    Every rank takes the same number of steps, so that ranks can agree on a stop in between. Each
    image is a batch of its own with a CPU generator: the number of ranks does not change it. A
    ControlNet is steered by the layer of the sample whose number is the image's seed.
    """
    pipeline = _pipeline(cfg, bundle, ranks.device)
    for first in range(0, len(images), ranks.world):
        if first + ranks.rank < len(images):
            image = images[first + ranks.rank]
            _paint_one(cfg, pipeline, image, folder, _steering(cfg, samples, image.seed))
        yield


def read_painted(folder: Path, images: list[GridImage]) -> NDArray[np.uint8]:
    """The images of a finished grid in gray (N, H, W)."""
    return np.stack([np.asarray(Image.open(folder / image.path).convert("L")) for image in images])


def _pipeline(cfg: TrainConfig, bundle: Bundle, device: torch.device) -> Any:
    pipeline: Any = bundle.pipeline()
    pipeline.scheduler = DDIMScheduler.from_config(bundle.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    if device.type == "cpu":
        return pipeline
    return pipeline.to(device, torch.bfloat16 if cfg.precision == "bf16" else torch.float32)


def _steering(cfg: TrainConfig, samples: Samples, seed: int) -> dict[str, Tensor]:
    if cfg.control is None:
        return {}
    layer, _ = samples.load(seed % len(samples), LAYERS[cfg.control.layer])
    return {"image": torch.from_numpy((layer + 1) / 2).permute(2, 0, 1)[None]}


@torch.no_grad()
def _paint_one(
    cfg: TrainConfig, pipeline: Any, image: GridImage, folder: Path, steering: dict[str, Tensor]
) -> None:
    painted = pipeline(
        image.prompt,
        num_inference_steps=cfg.validation_steps,
        guidance_scale=cfg.validation_guidance,
        generator=torch.Generator("cpu").manual_seed(image.seed),
        height=cfg.image_px,
        width=cfg.image_px,
        **steering,
    ).images[0]
    with publishing(folder / image.path) as file:
        painted.save(file, format="PNG")
