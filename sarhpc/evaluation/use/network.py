"""Small networks of E12: one for the class of an image, one for the class of each pixel."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

WIDTHS = (16, 32, 64, 128)
"""Channels of the classifier, as the all-convolutional networks of MSTAR have them (Chen et al.,
IEEE TGRS 54, 2016)."""
_HEAD_PX = 3
DROPOUT = 0.3


def classifier(classes: int) -> nn.Module:
    """(B, 1, H, W) to (B, classes); any size from 16 px on, about 117,000 weights for ten."""
    first, second, third, last = WIDTHS
    return nn.Sequential(
        *_stage(1, first, 5), nn.MaxPool2d(2),
        *_stage(first, second, 5), nn.MaxPool2d(2),
        *_stage(second, third, 3), nn.MaxPool2d(2),
        *_stage(third, last, 3), nn.AdaptiveMaxPool2d(_HEAD_PX),
        nn.Dropout(DROPOUT), nn.Flatten(), nn.Linear(last * _HEAD_PX**2, classes),
    )  # fmt: skip


class Segmenter(nn.Module):
    """A U-Net of three levels: (B, 1, H, W) to (B, classes, H, W), about 80,000 weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        first, second, third, _ = WIDTHS
        self.fine = nn.Sequential(*_stage(1, first, 5))
        self.middle = nn.Sequential(nn.MaxPool2d(2), *_stage(first, second, 3))
        self.coarse = nn.Sequential(
            nn.MaxPool2d(2), *_stage(second, third, 3), *_stage(third, third, 3)
        )
        self.up_middle = nn.Sequential(*_stage(third + second, second, 3))
        self.up_fine = nn.Sequential(*_stage(second + first, first, 3))
        self.head = nn.Conv2d(first, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of each pixel."""
        fine = self.fine(images)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.up_middle(torch.cat([_enlarged(coarse, middle), middle], 1))
        fine = self.up_fine(torch.cat([_enlarged(middle, fine), fine], 1))
        return cast("torch.Tensor", self.head(fine))


def _stage(i: int, o: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(i, o, kernel, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(o), nn.ReLU()]


def _enlarged(images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(images, size=like.shape[-2:], mode="nearest")
