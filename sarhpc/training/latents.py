"""Latents of tiles: the frozen autoencoder, run every time or once a tile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sarhpc.training.data import Share


class LatentEncoder:
    """Mean and log-variance of each image's latent, so that every epoch can sample anew.

    With the cache a tile is encoded alone, never beside others: the numbers then do not depend on
    which tiles were still unknown, and a resumed run with an empty cache repeats the bits.
    """

    def __init__(self, vae: Any, device: torch.device, *, cache: bool) -> None:
        self._vae = vae.to(device).eval().requires_grad_(False)
        self._device = device
        self._known: dict[tuple[str, bool], Tensor] | None = {} if cache else None

    @torch.no_grad()
    def moments(self, share: Share) -> Tensor:
        """Mean and log-variance stacked along the channels, (B, 8, h, w) float32 on the device."""
        if self._known is None:
            return self._encode(share.images)
        found = []
        for row, flipped in enumerate(share.flipped):
            name = (share.keys[row], flipped)
            if name not in self._known:
                self._known[name] = self._encode(share.images[row : row + 1]).cpu()
            found.append(self._known[name])
        return torch.cat(found).to(self._device)

    def _encode(self, images: Tensor) -> Tensor:
        latents = self._vae.encode(images.to(self._device)).latent_dist
        return torch.cat([latents.mean, latents.logvar], dim=1)
