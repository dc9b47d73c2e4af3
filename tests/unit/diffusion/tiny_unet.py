"""A U-Net of two levels that answers at once."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel


def tiny_unet() -> UNet2DConditionModel:
    """The same random weights each time; text of width 16, latents of 4 x 4."""
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=16,
    ).eval()
