"""ControlNet (Zhang et al., 2023): the U-Net conditioned on a layer of the tile, such as a sketch.

A copy of the U-Net's encoder takes the layer with the noisy latents and adds to the U-Net's skip
connections through zero-initialised convolutions: untrained it has no effect.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor

from sarhpc.diffusion.control_facts import CONTROLNET as CONTROLNET


def new_controlnet(unet: Any, seed: int) -> ControlNetModel:
    """An untrained ControlNet with the encoder of `unet`, the same for the same seed.

    It takes layers of three channels in [0, 1], eight times as large as the latents.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(unet).eval()


def predict_with_controlnet(
    unet: Any,
    controlnet: Any,
    latents: Tensor,
    timesteps: Tensor,
    context: Tensor,
    added: dict[str, Any] | None,
    layer: Tensor,
) -> Tensor:
    """Prediction (B, 4, h, w) of `unet` from noisy latents and layers (B, 3, 8h, 8w)."""
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
