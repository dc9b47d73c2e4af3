"""Model folders with a ControlNet, for tests of generation."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.model import load_pipeline


def save_with_controlnet(model: Path, folder: Path, channels: tuple[int, ...] = (4, 8)) -> Path:
    """`folder` with the model and a ControlNet whose last convolutions are not zero, as after
    training."""
    base = load_pipeline(model, GenerateConfig(), "cpu")
    torch.manual_seed(0)
    control = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=channels)
    for name, parameter in control.named_parameters():
        if "controlnet_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    parts = {name: getattr(base, name) for name in ("vae", "unet", "text_encoder", "tokenizer")}
    pipeline = StableDiffusionControlNetPipeline(
        **parts, scheduler=base.scheduler, controlnet=control, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder
