"""Patch discriminator: classifies patches as real or reconstructed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations


class PatchDiscriminator(nn.Module):
    """Scores (B, 1, H/8, W/8) of images (B, 3, H, W): above zero for real ones.

    Spectral normalisation bounds its slope, which keeps training stable at any batch size.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(3, width, 4, 2),
            nn.LeakyReLU(0.2),
            _conv(width, 2 * width, 4, 2),
            nn.LeakyReLU(0.2),
            _conv(2 * width, 4 * width, 4, 2),
            nn.LeakyReLU(0.2),
            _conv(4 * width, 1, 3, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """One score per patch of about 30 px."""
        scores: Tensor = self.layers(images)
        return scores


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    return parametrizations.spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, 1))


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator over scores of real and reconstructed patches."""
    return torch.mean(functional.relu(1 - real)) + torch.mean(functional.relu(1 + fake))


def generator_loss(fake: Tensor) -> Tensor:
    """Adversarial loss of the decoder: lower if its patches are classified as real."""
    return -torch.mean(fake)
