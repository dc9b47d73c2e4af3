"""The contrastive loss of CLIP over the global batch of all ranks and passes.

Radford et al. (2021): images and captions as unit vectors, cross-entropy of each image among all
captions and of each caption among all images, the mean of both. What counts as a negative is every
other tile of the global batch whose caption is another text: the same text on two tiles describes
both, so such a pair is neither pulled together nor pushed apart.

Tiles drawn at random seldom differ in a relation alone, so that these negatives hardly teach one
(Yuksekgonul et al., ICLR 2023). A tile may therefore have further texts, its own caption with a
relation exchanged: they are negatives of all images, and no image is asked for them.

A forward pass sees a part of the batch only. The vectors of all parts are therefore computed first
without gradients and exchanged; each pass then computes its own again, with gradients, and puts
them in their place (as GradCache, Gao et al. 2021, does). The sum over passes and ranks is the
gradient of the loss of the whole batch, however it is divided.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPModel

HIGHEST_SCALE = math.log(100.0)
"""Largest logarithm of the factor on similarities, that of the published CLIP."""


class Directions(nn.Module):
    """A CLIP that answers a batch with unit vectors of its images and texts, and the scale."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model
        # Held here, with one dimension: DeepSpeed distributes no parameter without any, and its
        # stage 3 gathers what a module that is called holds itself.
        self.log_scale = nn.Parameter(model.logit_scale.detach().clone().reshape(1))
        del model.logit_scale
        for module in model.modules():
            # A part computed twice must come out twice the same.
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (N, D) of images and of texts in float32, and the logarithm of the scale.

        T texts for each image, one after the other, give vectors (N, T, D) of texts.
        """
        images = self.model.get_image_features(pixels.to(self.model.dtype)).pooler_output
        texts = self.model.get_text_features(ids, attention_mask=mask).pooler_output
        scale = self.log_scale.float()
        # The value is bounded, its gradient is not: it can come back from the bound.
        bounded = scale + (scale.clamp(max=HIGHEST_SCALE) - scale).detach()
        if len(texts) != len(images):
            texts = texts.unflatten(0, (len(images), -1))
        return normalize(images.float(), dim=-1), normalize(texts.float(), dim=-1), bounded


def contrastive_loss(
    images: Tensor, texts: Tensor, log_scale: Tensor, names: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of a batch in nats, and the share of its images whose own caption is nearest.

    Args:
        images: unit vectors (N, D).
        texts: unit vectors (N, D), of the same tiles; or (N, T, D), the caption of a tile and
            texts that describe none.
        log_scale: logarithm of the factor on similarities.
        names: digest of each text (N,) or (N, T), see `text_digests`.
    """
    texts, names = texts.reshape(len(images), -1, images.shape[1]), names.reshape(len(images), -1)
    factor = log_scale.exp()
    logits = factor * images @ texts[:, 0].T
    same = names[:, :1] == names[None, :, 0]
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, -torch.inf)
    own = torch.arange(len(logits), device=logits.device)
    of_texts = cross_entropy(logits.T, own)
    if texts.shape[1] > 1:
        wrong = factor * images @ texts[:, 1:].flatten(0, 1).T
        wrong = wrong.masked_fill(names[:, :1] == names[None, :, 1:].reshape(1, -1), -torch.inf)
        logits = torch.cat([logits, wrong], dim=1)
    loss = (cross_entropy(logits, own) + of_texts) / 2
    return loss, (logits.detach().argmax(1) == own).float().mean()


def in_place(own: Tensor, first: int, whole: Tensor, parts: int) -> Tensor:
    """`whole` with the rows from `first` on replaced by `own`, their gradient `parts`-fold.

    The trainer averages gradients over passes and ranks; each row has its gradient in one of them.
    """
    weighted = own.detach() + parts * (own - own.detach())
    return torch.cat([whole[:first], weighted, whole[first + len(own) :]])


def exchanged(rows: Tensor, world: int) -> Tensor:
    """Rows of all ranks in their order, without gradients. Collective."""
    rows = rows.detach().contiguous()
    if world == 1:
        return rows
    everyone = [torch.empty_like(rows) for _ in range(world)]
    torch.distributed.all_gather(everyone, rows)
    return torch.cat(everyone)


def text_digests(texts: Sequence[str]) -> Tensor:
    """A number (N,) for each text; equal texts have equal ones, on every rank."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    return torch.tensor([int.from_bytes(d, "little", signed=True) for d in digests])
