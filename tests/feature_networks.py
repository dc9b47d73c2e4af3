"""Small networks with fixed random weights, whose features tests compare."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

WIDTH = 6


class SmallNetwork(nn.Module):
    """Six features of a picture: mean and spread of three filtered copies."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.conv = nn.Conv2d(channels, WIDTH // 2, 3, bias=False)
        self.conv.weight = nn.Parameter(torch.randn(self.conv.weight.shape, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.conv(x).flatten(2)
        return torch.cat([found.mean(2), found.std(2)], 1)


class LikeInception(nn.Module):
    """Takes codes of 0 to 255 and a word, as the published file of Inception does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SmallNetwork()

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        found = self.inner(img / 255.0)
        return found if return_features else found[:, :2]


def script_file(path: Path, network: nn.Module | None = None) -> Path:
    """The network as a TorchScript file."""
    torch.jit.script(network or SmallNetwork()).save(str(path))  # type: ignore[no-untyped-call]
    return path


def dinov2_folder(path: Path, px: int = 28, width: int = 8) -> Path:
    """A DINOv2 of two layers in a folder of transformers."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(3)
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=2, num_attention_heads=2, image_size=px, patch_size=14
    )
    Dinov2Model(config).save_pretrained(path)
    return path


def clip_folder(path: Path, px: int = 32) -> Path:
    """A CLIP of two layers for pictures and words in a folder of transformers."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(3)
    small = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "projection_dim": 8,
    }  # fmt: skip
    vision = CLIPVisionConfig(**small, image_size=px, patch_size=8)
    text = CLIPTextConfig(**small, vocab_size=50)
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    CLIPModel(config).save_pretrained(path)
    return path
