"""Batches for a caption fine-tuning: which images in which order, and their tensors.

A batch is that of all ranks, and so is its loss: the mean over all word pieces that count in it.
Which captions it shows is known to every rank from the seed alone, so each knows how much its own
part weighs without asking the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sarhpc.captioning.captioners.blip import Blip
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.tuning.datasets import CaptionedImage
from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch
from sarhpc.shards.transfer import to_device

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

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        """All four in order."""
        return self.pixels, self.ids, self.mask, self.labels


@dataclass(frozen=True)
class CaptionBatch:
    """The images of one rank in one step."""

    passes: list[tuple[tuple[torch.Tensor, ...], float]]
    """Tensors of each forward pass, and the factor that makes its mean loss part of the batch's."""
    all_keys: list[str]
    """Names of the images."""


def rank_batches(
    blip: Blip,
    images: Sequence[CaptionedImage],
    cfg: CaptionTrainConfig,
    start: Cursor = Cursor(),  # noqa: B008 (frozen)
    rank: int = 0,
    world: int = 1,
    order: SampleOrder | None = None,
) -> Generator[tuple[Cursor, CaptionBatch]]:
    """Yield (cursor after the batch, this rank's part) without end, images read ahead.

    Which images and how captioned the seed alone decides.

    Args:
        blip: whose tensors they become.
        images: to learn from.
        cfg: the fine-tuning.
        start: place in the order.
        rank: this one, of `world`.
        world: how many ranks share a batch.
        order: that of the rows of `images`; none shows each once an epoch.
    """
    order = order or SampleOrder(cfg.seed, len(images))

    def load(row: int) -> NDArray[np.uint8]:
        return images[row].read()

    mine = prefetch(load, batches(order, start, cfg.batch, rank, world), threads=cfg.readers)
    whole = batches(order, start, cfg.batch)
    with contextlib.closing(mine):
        for (cursor, loaded), (_, rows) in zip(mine, whole, strict=False):
            draws = np.random.PCG64([cfg.seed, cursor.epoch, cursor.sample]).random_raw(len(rows))
            captions = [
                _choose(images[row].distinct, int(draw))
                for row, draw in zip(rows, draws, strict=True)
            ]
            own = slice(rank * len(loaded), (rank + 1) * len(loaded))
            pairs = list(zip(loaded, captions[own], strict=True))
            weights = _pieces(blip, captions, cfg)
            mean = sum(weights) / world
            passes = _passes(blip, pairs, weights[own], mean, cfg)
            yield cursor, CaptionBatch(passes, [images[row].name for row in rows[own]])


def _choose(captions: Sequence[str], draw: int) -> str:
    return captions[draw % len(captions)]


def _passes(
    blip: Blip,
    pairs: Sequence[tuple[NDArray[np.uint8], str]],
    weights: Sequence[int],
    mean: float,
    cfg: CaptionTrainConfig,
) -> list[tuple[tuple[torch.Tensor, ...], float]]:
    """The forward passes over `pairs`, weighed by word pieces; a rank has `mean` of these."""
    size = min(cfg.micro_batch or len(pairs), len(pairs))
    starts = range(0, len(pairs), size)
    return [
        (
            collate(blip, pairs[at : at + size], cfg).inputs,
            sum(weights[at : at + size]) * len(starts) / mean,
        )
        for at in starts
    ]


def _pieces(blip: Blip, captions: Sequence[str], cfg: CaptionTrainConfig) -> list[int]:
    """How many word pieces of each caption the loss counts: those after the prompt, and [SEP]."""
    opening = blip.opening_length(cfg.prompt) - 1
    texts = blip.tokenizer(_texts(captions, cfg), truncation=True, max_length=_longest(blip, cfg))
    return [len(ids) - opening for ids in texts.input_ids]


def _texts(captions: Sequence[str], cfg: CaptionTrainConfig) -> list[str]:
    return [f"{cfg.prompt} {caption}".strip() for caption in captions]


def _longest(blip: Blip, cfg: CaptionTrainConfig) -> int:
    """Most word pieces of a text, [SEP] included."""
    return min(cfg.max_tokens + blip.opening_length(cfg.prompt) - 1, blip.positions)


def collate(
    blip: Blip, pairs: Sequence[tuple[NDArray[np.uint8], str]], cfg: CaptionTrainConfig
) -> Batch:
    """Tensors of images (H, W, 3) with their captions, each after the prompt of `cfg`."""
    opening = blip.opening_length(cfg.prompt) - 1
    encoded = blip.tokenizer(
        _texts([caption for _, caption in pairs], cfg),
        padding=True,
        truncation=True,
        max_length=_longest(blip, cfg),
        return_tensors="pt",
    )
    ids, mask = encoded.input_ids, encoded.attention_mask
    ids[:, 0] = blip.model.config.text_config.bos_token_id
    labels = ids.masked_fill(mask == 0, _IGNORED)
    labels[:, :opening] = _IGNORED
    pixels = blip.host_pixels([image for image, _ in pairs])
    pixels, ids, mask, labels = to_device([pixels, ids, mask, labels], blip.device)
    return Batch(pixels.to(blip.model.dtype), ids, mask, labels)
