"""Conditioning layers for a ControlNet: those of real tiles, used in turn."""

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
