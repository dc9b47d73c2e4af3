"""What steers the images of a ControlNet: layers of real tiles, taken in turn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.diffusion.config import LAYERS
from sarhpc.generation.config import SteerConfig
from sarhpc.shards.samples import ShardedSamples


@dataclass(frozen=True)
class Steer:
    """The layer that steers one image."""

    layer: NDArray[np.float32]
    """(H, W, 3) in [0, 1]."""
    key: str
    """Key of the tile it is of."""
    sha256: str
    """Digest of its member's bytes."""


class SteeringLayers:
    """The layers of all samples in some shards, by number."""

    def __init__(self, shards: Sequence[Path], cfg: SteerConfig) -> None:
        """Index the shards.

        Raises:
            DataError: they hold no sample, or one is damaged.
        """
        self._samples = ShardedSamples(shards)
        self._cfg = cfg
        if len(self._samples) == 0:
            raise DataError(
                "no tiles to steer by: name shards with layers in generate.steer.shards"
            )

    def __len__(self) -> int:
        return len(self._samples)

    def caption(self, number: int) -> str:
        """Scene description of the tile, without activation words.

        Raises:
            DataError: it has none.
        """
        text = self._samples[number].meta.get("caption", {}).get("SHORT")
        if not text:
            raise DataError(
                f"tile {self._samples.key(number)} has no caption: give generate.prompts, or steer "
                "by captioned shards"
            )
        return str(text)

    def load(self, number: int) -> Steer:
        """The layer that steers image `number` of a corpus; the tiles are taken in turn.

        Raises:
            DataError: the tile has no such layer.
        """
        number %= len(self)
        member = LAYERS[self._cfg.layer]
        # The layer alone: tiles that nobody captioned steer as well.
        image, _ = self._samples.load(number, member, None)
        data = self._samples.member(number, member) or b""
        digest = hashlib.sha256(data).hexdigest()
        return Steer((image + np.float32(1)) / np.float32(2), self._samples.key(number), digest)


def facts_of(steer: Steer, cfg: SteerConfig) -> dict[str, Any]:
    """What the metadata of a steered image says of its layer."""
    return {
        "layer": cfg.layer,
        "scale": cfg.scale,
        "tile": steer.key,
        "sha256": steer.sha256,
    }
