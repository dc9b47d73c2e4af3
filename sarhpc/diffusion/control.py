"""ControlNet (Zhang et al., 2023): the U-Net steered by a layer of the tile, such as a sketch.

A copy of the U-Net's encoder reads the layer beside the noisy latents and adds to what the U-Net
hands from its encoder to its decoder, through convolutions that start at zero: before any training
it changes nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor

FOLDER = "controlnet"
"""Its folder in a diffusers pipeline."""


def new_controlnet(unet: Any, seed: int) -> ControlNetModel:
    """An untrained ControlNet with the encoder of `unet`; the same seed draws the same.

    It reads layers of three channels in [0, 1], eight times as large as the latents.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(unet).eval()


def steered(
    unet: Any,
    controlnet: Any,
    latents: Tensor,
    timesteps: Tensor,
    context: Tensor,
    added: dict[str, Any] | None,
    layer: Tensor,
) -> Tensor:
    """Prediction (B, 4, h, w) of `unet` from noisy latents, steered by layers (B, 3, 8h, 8w)."""
    down, middle = controlnet(
        latents,
        timesteps,
        encoder_hidden_states=context,
        controlnet_cond=layer.to(latents.dtype),
        added_cond_kwargs=added,
        return_dict=False,
    )
    prediction: Tensor = unet(
        latents,
        timesteps,
        encoder_hidden_states=context,
        added_cond_kwargs=added,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    return prediction
