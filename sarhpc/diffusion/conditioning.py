"""What the U-Net is told besides the noisy latents: the caption and, for SDXL, the tile's sizes.

Podell et al., SDXL (arXiv:2307.01952), section 2.2 and table 1: the outputs of both encoders' last
layer but one side by side, the pooled embedding of the second, and original size, crop and target
size as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids (B, L) of the captions, cut and padded to what the text encoder reads."""
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
    """How many tokens at the end of each text the text encoder never reads (it reads 75)."""
    encoded = tokenizer(list(texts), truncation=False, verbose=False)
    return [max(0, len(ids) - tokenizer.model_max_length) for ids in encoded.input_ids]


def encode_text(
    encoder: Any, token_ids: Tensor, encoder_2: Any = None, token_ids_2: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Text embedding (B, L, D) and, with a second encoder, its pooled embedding (B, P).

    SD 1.5 reads the last layer of its encoder, SDXL the last but one of both.
    """
    if encoder_2 is None:
        return encoder(token_ids)[0], None
    first = encoder(token_ids, output_hidden_states=True)
    second = encoder_2(token_ids_2, output_hidden_states=True)
    context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return context, second.text_embeds


def size_numbers(images: Tensor) -> Tensor:
    """SDXL's numbers (B, 6) for whole tiles (B, 3, H, W): H, W, top 0, left 0, H, W; int64.

    A tile is neither scaled nor cut on its way to the model, so original and target size are its
    own and the crop begins at its corner: what pipelines assume for the images they draw.
    """
    height, width = images.shape[-2:]
    return torch.tensor([[height, width, 0, 0, height, width]] * len(images))


def unread(models: Mapping[str, Any]) -> Iterator[nn.Module]:
    """Yield the trainable modules of a bundle that no prediction depends on.

    The last layer of SDXL's first encoder and the norm behind it: no gradient ever reaches them.
    """
    if "text_encoder_2" in models:
        # The bare CLIP model lies one level deeper in some versions of transformers.
        text = getattr(models["text_encoder"], "text_model", models["text_encoder"])
        yield text.encoder.layers[-1]
        yield text.final_layer_norm
