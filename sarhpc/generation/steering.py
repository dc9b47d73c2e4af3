"""Conditioning layers for a ControlNet: those of real tiles, used in turn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.diffusion.config import LAYERS
from sarhpc.generation.config import SteerConfig
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


class SteeringLayers:
    """The layers of all samples in some shards, by number."""

    def __init__(self, shards: Sequence[Path], cfg: SteerConfig) -> None:
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


def steering_facts(steer: SteeringLayer, cfg: SteerConfig) -> dict[str, Any]:
    """Metadata of an image about its conditioning layer."""
    return {
        "layer": cfg.layer,
        "scale": cfg.scale,
        "tile": steer.key,
        "sha256": steer.sha256,
    }


def with_layers(
    samples: Iterable[Sample], layers: SteeringLayers, member: str, first: int, each: int = 1
) -> Iterator[Sample]:
    """Yield the samples with the layer that steered each as `member`: the label of its pixels.

    A layer of another size than its image, which fits no pixel, is left out.

    Args:
        samples: of one shard.
        layers: that steered them.
        member: name of the layer in a sample.
        first: number of the shard's first image in the corpus, in a sweep of its first layout.
        each: samples of a layout, which one layer steered.
    """
    for sample in samples:
        data = layers.member(first + int(sample.key[-5:]) // each)
        fits = _size(data) == _size(sample.members["sar.png"])
        yield sample.with_members(**{member.replace(".", "__"): data}) if fits else sample


def _size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG, px."""
    with opened_picture(data, ("PNG",)) as picture:
        return int(picture.width), int(picture.height)
