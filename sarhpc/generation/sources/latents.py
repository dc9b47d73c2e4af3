"""What a pipeline that begins with images is given instead of initial noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hpc.errors import DataError
from sarhpc.diffusion.unblocked_sampling import without_waiting
from sarhpc.generation.sources.source_images import SourceImage

if TYPE_CHECKING:
    from sarhpc.generation.config import GenerateConfig


def image_arguments(
    pipeline: Any,
    images: Sequence[SourceImage],
    cfg: GenerateConfig,
    batch: int,
    steering: Mapping[str, Any],
) -> dict[str, Any]:
    """Arguments of a pipeline that begins with `images`, padded to `batch`.

    With a ControlNet what is the image of its text-to-image pipeline is the control image here.
    """
    assert cfg.image_to_image is not None
    rows, columns = images[0].levels.shape
    if any(image.levels.shape != (rows, columns) for image in images):
        raise DataError(f"{images[0].name} and others of its batch are not of one size")
    padded = [*images] + [images[-1]] * (batch - len(images))
    given = dict(steering)
    if given:
        given |= {"control_image": given.pop("image"), "height": rows, "width": columns}
    # Latents, which the pipelines take as they are: theirs would be drawn from the posterior.
    return {
        **given,
        "image": torch.cat([latents_of(pipeline, image) for image in padded]),
        "strength": cfg.image_to_image.strength,
    }


@torch.no_grad()
def latents_of(pipeline: Any, image: SourceImage) -> Tensor:
    """Scaled latents (1, C, h, w) of an image: the mode of the posterior, encoded by itself.

    The bits depend neither on the images beside it nor on a seed.
    """
    vae = pipeline.vae
    dtype = vae.dtype
    # The published autoencoder of SDXL overflows in float16; decoding is done likewise.
    upcast = dtype == torch.float16 and bool(vae.config.get("force_upcast"))
    if upcast:
        vae.to(torch.float32)
    gray = torch.from_numpy(image.levels)[None, None].expand(1, 3, -1, -1) * 2 - 1
    pixels = without_waiting(gray.to(vae.dtype).contiguous(), pipeline.device)
    latents: Tensor = vae.encode(pixels).latent_dist.mode()
    if upcast:
        vae.to(dtype)
    mean, deviation = (vae.config.get(f"latents_{name}") for name in ("mean", "std"))
    if mean is not None and deviation is not None:
        latents = (latents - _column(mean, latents)) / _column(deviation, latents)
    return (latents * vae.config.scaling_factor).to(dtype)


def _column(values: Sequence[float], latents: Tensor) -> Tensor:
    return torch.tensor(values, dtype=latents.dtype, device=latents.device).view(1, -1, 1, 1)
