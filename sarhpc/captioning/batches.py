"""Batches for a caption fine-tuning: which images in which order, and their tensors."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from sarhpc.captioning.blip import Blip
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.datasets import CaptionedImage
from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch

_IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Tensors of N captioned images of L word pieces."""

    pixels: torch.Tensor
    """Normalised images (N, 3, S, S)."""
    ids: torch.Tensor
    """Word pieces (N, L), the first of them [DEC]."""
    mask: torch.Tensor
    """1 where `ids` is text, 0 where it is padding, (N, L)."""
    labels: torch.Tensor
    """`ids` where the loss counts, -100 elsewhere, (N, L)."""


def training_batches(
    blip: Blip,
    images: Sequence[CaptionedImage],
    cfg: CaptionTrainConfig,
    order: SampleOrder | None = None,
) -> Iterator[Batch]:
    """`cfg.steps` batches, images read ahead; which and how captioned the seed alone decides.

    `order` is that of the rows of `images`; none shows each once an epoch.
    """
    plan = batches(order or SampleOrder(cfg.seed, len(images)), Cursor(), cfg.batch)

    def load(row: int) -> tuple[int, NDArray[np.uint8]]:
        return row, images[row].read()

    stream = prefetch(load, plan, threads=cfg.readers)
    with contextlib.closing(cast("Generator[Any, None, None]", stream)):
        for cursor, loaded in itertools.islice(stream, cfg.steps):
            draws = np.random.PCG64([cfg.seed, cursor.epoch, cursor.sample]).random_raw(len(loaded))
            pairs = [
                (image, _choose(images[row].distinct, int(draw)))
                for (row, image), draw in zip(loaded, draws, strict=True)
            ]
            yield collate(blip, pairs, cfg)


def _choose(captions: Sequence[str], draw: int) -> str:
    return captions[draw % len(captions)]


def collate(
    blip: Blip, pairs: Sequence[tuple[NDArray[np.uint8], str]], cfg: CaptionTrainConfig
) -> Batch:
    """Tensors of images (H, W, 3) with their captions, each after the prompt of `cfg`."""
    opening = blip.opening(cfg.prompt)[0, :-1]
    text = blip.model.config.text_config
    encoded = blip.tokenizer(
        [f"{cfg.prompt} {caption}".strip() for _, caption in pairs],
        padding=True,
        truncation=True,
        max_length=min(cfg.max_tokens + len(opening), text.max_position_embeddings),
        return_tensors="pt",
    ).to(blip.device)
    ids, mask = encoded.input_ids, encoded.attention_mask
    ids[:, 0] = text.bos_token_id
    labels = ids.masked_fill(mask == 0, _IGNORED)
    labels[:, : len(opening)] = _IGNORED
    return Batch(blip.pixels([image for image, _ in pairs]), ids, mask, labels)
