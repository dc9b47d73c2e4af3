"""Conditioning layers for a ControlNet: those of real tiles, used in turn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.diffusion.config import LAYERS
from sarhpc.generation.controls.config import ControlInputConfig
from sarhpc.shards.pictures import opened_picture
from sarhpc.shards.sample import Sample
from sarhpc.shards.samples import ShardedSamples


@dataclass(frozen=True)
class SteeringLayer:
    """The conditioning layer of one image."""

    layer: NDArray[np.float32]
    """(H, W, 3) in [0, 1]."""
    key: str
    """Key of its tile."""
    sha256: str
    """Digest of the member's bytes."""
    drawn: bool = False
    """Whether it was drawn by hand: its key is then the name of a file."""
    further: tuple[SteeringLayer, ...] = ()
    """Layers of the further ControlNets, in their order."""


def as_layer(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The codes of a picture in [0, 1], by the arithmetic of tiles, whose bits they share."""
    signed = codes.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return (signed + np.float32(1)) / np.float32(2)


class LayerSource(Protocol):
    """Conditioning layers by the number of their image in a corpus."""

    def __len__(self) -> int: ...

    def caption(self, number: int) -> str:
        """Scene description that comes with a layer."""

    def members(self, number: int) -> dict[str, bytes]:
        """The layers for image `number` as members of its sample."""

    def load(self, number: int) -> SteeringLayer:
        """The layers for image `number`."""


class SteeringLayers:
    """The layers of all samples in some shards, by number."""

    def __init__(self, shards: Sequence[Path], cfg: ControlInputConfig) -> None:
        """Index the shards.

        Raises:
            DataError: they contain no sample, or a damaged one.
        """
        self._samples = ShardedSamples(shards)
        self._cfg = cfg
        if len(self._samples) == 0:
            raise DataError(
                "no tiles with conditioning layers: set generate.steer.shards to their shards"
            )

    def __len__(self) -> int:
        return len(self._samples)

    def caption(self, number: int) -> str:
        """Scene description of the tile, without activation words.

        Raises:
            DataError: it has no caption.
        """
        text = self._samples[number].meta.get("caption", {}).get("SHORT")
        if not text:
            raise DataError(
                f"tile {self._samples.key(number)} has no caption: set generate.prompts, or "
                "generate.steer.shards to captioned shards"
            )
        return str(text)

    def member(self, number: int) -> bytes:
        """Bytes of the layer for image `number` of a corpus, as in the shard of its tile.

        Raises:
            DataError: the tile has no such layer.
        """
        number %= len(self)
        data = self._samples.member(number, LAYERS[self._cfg.layer])
        if data is None:
            raise DataError(
                f"tile {self._samples.key(number)} has no {LAYERS[self._cfg.layer]}: make its "
                "shard again"
            )
        return data

    def members(self, number: int) -> dict[str, bytes]:
        """The layer for image `number` of a corpus by the name of its member.

        Raises:
            DataError: the tile has no such layer.
        """
        return {LAYERS[self._cfg.layer]: self.member(number)}

    def load(self, number: int) -> SteeringLayer:
        """The layer for image `number` of a corpus; the tiles are used in turn.

        Raises:
            DataError: the tile has no such layer.
        """
        number %= len(self)
        member = LAYERS[self._cfg.layer]
        # Only the layer: tiles without a caption can be used as well.
        image, _ = self._samples.load(number, member, None)
        data = self._samples.member(number, member) or b""
        digest = hashlib.sha256(data).hexdigest()
        return SteeringLayer(
            (image + np.float32(1)) / np.float32(2), self._samples.key(number), digest
        )


def with_layers(
    samples: Iterable[Sample], layers: LayerSource, first: int, names: Sequence[str], each: int = 1
) -> Iterator[Sample]:
    """Yield the samples with the layers that steered each: the labels of its pixels.

    A layer of another size than its image, which fits no pixel, is left out.

    Args:
        samples: of one shard.
        layers: that steered them.
        first: number of the shard's first image in the corpus, in a sweep of its first layout.
        names: members that are kept.
        each: samples of a layout, which one layer steered.
    """
    for sample in samples:
        size = _size(sample.members["sar.png"])
        found = layers.members(first + int(sample.key[-5:]) // each)
        kept = {name: data for name, data in found.items() if name in names and _size(data) == size}
        named = {name.replace(".", "__"): data for name, data in kept.items()}
        yield sample.with_members(**named) if named else sample


def _size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG, px."""
    with opened_picture(data, ("PNG",)) as picture:
        return int(picture.width), int(picture.height)
