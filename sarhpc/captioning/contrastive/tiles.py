"""Radar tiles and captions as CLIP takes them, for training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.sample import Sample, decode_meta
from sarhpc.shards.samples import ShardedSamples
from sarhpc.shards.stretch import displayed

RADAR = "sar.png"


@dataclass(frozen=True)
class CaptionedTile:
    """A radar picture (H, W, 3) as it is displayed, and its caption."""

    key: str
    picture: NDArray[np.uint8]
    text: str


def seen(codes: NDArray[np.uint8], meta: dict[str, object]) -> NDArray[np.uint8]:
    """8-bit codes (H, W) of a tile as the picture (H, W, 3) that CLIP is given."""
    return np.repeat(displayed(codes, meta)[:, :, None], 3, axis=2)


class CaptionedTiles:
    """The captioned radar tiles of shards, read when needed."""

    def __init__(self, samples: ShardedSamples, text: str = "txt") -> None:
        """Tiles of `samples` with their caption `text`: `txt`, SHORT, MID or LONG."""
        self._samples, self._text = samples, text

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> CaptionedTile:
        """Tile `number`.

        Raises:
            DataError: it has no radar picture or caption, or they cannot be decoded.
        """
        key = self._samples.key(number)
        codes = self._samples.member(number, RADAR)
        if codes is None:
            raise DataError(f"sample {key} has no {RADAR}: clip-train learns from radar tiles.")
        meta = decode_meta(self._samples.member(number, "meta.json") or b"{}", key)
        return CaptionedTile(key, seen(decode_gray8(codes), meta), self.caption(number))

    def caption(self, number: int) -> str:
        """Caption of tile `number`; nothing else of it is read.

        Raises:
            DataError: it has none.
        """
        key = self._samples.key(number)
        if self._text == "txt":
            data = self._samples.member(number, "txt")
            found = None if data is None else Sample(key, {"txt": data}).caption
        else:
            meta = decode_meta(self._samples.member(number, "meta.json") or b"{}", key)
            lengths = meta.get("caption")
            found = lengths.get(self._text) if isinstance(lengths, dict) else None
        if not isinstance(found, str) or not found.strip():
            raise DataError(f"sample {key} has no caption {self._text}: caption the tiles first.")
        return found

    def captions(self) -> list[str]:
        """Captions of all tiles, in order."""
        return [self.caption(number) for number in range(len(self))]
