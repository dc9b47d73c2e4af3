"""Inputs of the text encoders and of the micro-conditioning: token ids and size ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPTokenizer


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids (B, L) of the captions, truncated and padded to the text encoder's length."""
    encoded = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    ids: Tensor = encoded.input_ids
    return ids


def tokens_cut(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> list[int]:
    """How many tokens of each text are truncated (a published CLIP reads 75)."""
    encoded = tokenizer(list(texts), truncation=False, verbose=False)
    return [max(0, len(ids) - tokenizer.model_max_length) for ids in encoded.input_ids]


def size_ids(images: int, height: int, width: int) -> Tensor:
    """Size ids (B, 6) of so many whole tiles (B, 3, H, W): H, W, top 0, left 0, H, W; int64.

    A tile is neither resized nor cropped before training, so original and target size are its own
    and the crop offset is zero: what pipelines assume for the images they generate.
    """
    return torch.tensor([[height, width, 0, 0, height, width]] * images)
