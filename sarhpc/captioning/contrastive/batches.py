"""Batches for a contrastive fine-tuning: which tiles in which order, and their tensors."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from torch import Tensor

from sarhpc.captioning.captioners.clip import Clip
from sarhpc.captioning.contrastive.config import ClipTrainConfig
from sarhpc.captioning.contrastive.loss import text_digests
from sarhpc.captioning.contrastive.tiles import CaptionedTile, CaptionedTiles
from sarhpc.measures.relations import exchanges
from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch
from sarhpc.shards.mirror import mirrored
from sarhpc.shards.transfer import to_device

Inputs = tuple[Tensor, Tensor, Tensor]
"""Pixels (N, 3, S, S), word pieces (T N, L), and 1 where these are text (T N, L)."""


@dataclass(frozen=True)
class TileBatch:
    """The tiles of one rank in one step."""

    passes: list[Inputs]
    """What each forward pass sees."""
    names: Tensor
    """Digest of each caption (N,), or of the caption and the text contrasted with it (N, 2)."""
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

    Tiles are never flipped along range: near range would no longer be where the captions say.
    """
    order = SampleOrder(cfg.seed, len(tiles))
    plan = batches(order, start, cfg.batch, rank, world)
    with contextlib.closing(prefetch(tiles.__getitem__, plan, threads=cfg.readers)) as read:
        for cursor, loaded in read:
            keys = [tile.key for tile in loaded]
            first = cursor.epoch * order.n + cursor.sample - cfg.batch + rank * len(loaded)
            epochs = [(first + place) // order.n for place in range(len(loaded))]
            if cfg.azimuth_flip:
                loaded = [_flipped(t, cfg.seed, e) for t, e in zip(loaded, epochs, strict=True)]
            texts = [[tile.text] for tile in loaded]
            if cfg.exchanged_relations:
                for each, epoch in zip(texts, epochs, strict=True):
                    others = exchanges(each[0])
                    # Without a relation the own text, which is no negative, fills the place.
                    each.append(others[epoch % len(others)] if others else each[0])
            size = min(cfg.micro_batch or len(loaded), len(loaded))
            passes = [
                collate(clip, loaded[at : at + size], texts[at : at + size])
                for at in range(0, len(loaded), size)
            ]
            names = text_digests([text for each in texts for text in each])
            yield cursor, TileBatch(passes, names.reshape(len(texts), -1), keys)


def _flipped(tile: CaptionedTile, seed: int, epoch: int) -> CaptionedTile:
    """The tile, or in half of all epochs its mirror image along azimuth, if it has one in words."""
    coin = hashlib.sha256(f"{seed}/{epoch}/flip/{tile.key}".encode()).digest()[0] & 1
    text = mirrored(tile.text) if coin else None
    if text is None:
        return tile
    return dataclasses.replace(tile, picture=tile.picture[::-1].copy(), text=text)


def collate(
    clip: Clip, tiles: Sequence[CaptionedTile], texts: Sequence[Sequence[str]] | None = None
) -> Inputs:
    """Tensors of tiles and of their texts, on the device of the model.

    Args:
        clip: whose processor and tokenizer make them.
        tiles: what it sees.
        texts: as many of each tile, its caption first; None for the captions alone.
    """
    pixels = clip.processor([tile.picture for tile in tiles], return_tensors="pt")["pixel_values"]
    encoded = clip.tokenizer(
        [text for each in texts or [[tile.text] for tile in tiles] for text in each],
        padding=True,
        truncation=True,
        max_length=int(clip.model.config.text_config.max_position_embeddings),
        return_tensors="pt",
    )
    given = [pixels.float(), encoded.input_ids, encoded.attention_mask]
    pixels, ids, mask = to_device(given, clip.model.device)
    return pixels, ids, mask
