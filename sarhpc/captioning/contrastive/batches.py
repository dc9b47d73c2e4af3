"""Batches for a contrastive fine-tuning: which tiles in which order, and their tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from torch import Tensor

from sarhpc.captioning.captioners.clip import Clip
from sarhpc.captioning.contrastive.config import ClipTrainConfig
from sarhpc.captioning.contrastive.loss import text_digests
from sarhpc.captioning.contrastive.tiles import CaptionedTile, CaptionedTiles
from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch
from sarhpc.shards.transfer import to_device

Inputs = tuple[Tensor, Tensor, Tensor]
"""Pixels (N, 3, S, S), word pieces (N, L), and 1 where these are text (N, L)."""


@dataclass(frozen=True)
class TileBatch:
    """The tiles of one rank in one step."""

    passes: list[Inputs]
    """What each forward pass sees."""
    names: Tensor
    """Digest of each caption (N,)."""
    all_keys: list[str]
    """Keys of the tiles."""


def rank_batches(
    clip: Clip,
    tiles: CaptionedTiles,
    cfg: ClipTrainConfig,
    start: Cursor = Cursor(),  # noqa: B008 (frozen)
    rank: int = 0,
    world: int = 1,
) -> Generator[tuple[Cursor, TileBatch]]:
    """Yield (cursor after the batch, this rank's part) without end, tiles read ahead.

    Tiles are not flipped or turned: near range would no longer be where the captions say.
    """
    order = SampleOrder(cfg.seed, len(tiles))
    plan = batches(order, start, cfg.batch, rank, world)
    with contextlib.closing(prefetch(tiles.__getitem__, plan, threads=cfg.readers)) as read:
        for cursor, loaded in read:
            size = min(cfg.micro_batch or len(loaded), len(loaded))
            parts = [loaded[at : at + size] for at in range(0, len(loaded), size)]
            names = text_digests([tile.text for tile in loaded])
            keys = [tile.key for tile in loaded]
            yield cursor, TileBatch([collate(clip, part) for part in parts], names, keys)


def collate(clip: Clip, tiles: Sequence[CaptionedTile]) -> Inputs:
    """Tensors of tiles and their captions, on the device of the model."""
    pixels = clip.processor([tile.picture for tile in tiles], return_tensors="pt")["pixel_values"]
    encoded = clip.tokenizer(
        [tile.text for tile in tiles],
        padding=True,
        truncation=True,
        max_length=int(clip.model.config.text_config.max_position_embeddings),
        return_tensors="pt",
    )
    given = [pixels.float(), encoded.input_ids, encoded.attention_mask]
    pixels, ids, mask = to_device(given, clip.model.device)
    return pixels, ids, mask
