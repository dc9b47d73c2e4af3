"""Drawings as the conditioning layers of a corpus: the files of a folder, used in turn."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpc.errors import ConfigError, DataError
from hpc.regular_files import read_regular
from sarhpc.diffusion.config import LAYERS
from sarhpc.generation.controls.config import ControlInputConfig
from sarhpc.generation.controls.drawing import SUFFIXES, drawn_layer
from sarhpc.generation.sources.found import printable
from sarhpc.generation.steering import SteeringLayer, as_layer
from sarhpc.shards.images import decode_gray8, encode_gray8

DRAWN_LAYER = "edges"
"""The layer that a drawing stands for."""


def drawings(sketch: str) -> list[Path]:
    """The files that `sketch` names, in the order in which images use them.

    Raises:
        ConfigError: there is none, or one of another kind.
    """
    path = Path(sketch)
    if not sketch or not path.exists():
        named = printable(sketch) or "''"
        raise ConfigError(f"no drawing {named}: give a .png or .svg file, or a folder of them")
    if not path.is_dir():
        return [_known(path)]
    files = sorted(f for f in path.iterdir() if not f.is_dir() and not f.name.startswith("."))
    if not files:
        raise ConfigError(f"no drawings in {sketch}: put .png or .svg files there")
    return [_known(file) for file in files]


def _known(path: Path) -> Path:
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} is no drawing: give {' or '.join(SUFFIXES)} files")
    return path


def drawings_sha(files: Sequence[Path]) -> str:
    """Digest of names and contents, by which a plan knows its drawings again."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(b"%s " % os.fsencode(file.name))
        digest.update(f"{hashlib.sha256(read_regular(file)).hexdigest()}\n".encode())
    return digest.hexdigest()


class DrawnLayers:
    """The layers of drawings, by number; as `SteeringLayers`, without captions."""

    def __init__(self, files: Sequence[Path], size: tuple[int, int]) -> None:
        """Name the files, and the (height, width) of the images; they are read when they are used.

        Args:
            files: as `drawings` finds them.
            size: of the images, px.
        """
        self._files, self._size = tuple(files), size
        self._members: dict[Path, bytes] = {}

    def __len__(self) -> int:
        return len(self._files)

    def caption(self, number: int) -> str:
        """Nothing: drawings have no captions.

        Raises:
            DataError: always.
        """
        raise DataError(f"{self._files[number]} has no caption: set generate.prompts")

    def member(self, number: int) -> bytes:
        """The layer for image `number` of a corpus as a PNG.

        Raises:
            DataError: the drawing is of no use.
        """
        file = self._files[number % len(self)]
        if file not in self._members:
            self._members[file] = encode_gray8(drawn_layer(file, *self._size))
        return self._members[file]

    def members(self, number: int) -> dict[str, bytes]:
        """The layer for image `number` of a corpus by the name of its member.

        Raises:
            DataError: the drawing is of no use.
        """
        return {LAYERS[DRAWN_LAYER]: self.member(number)}

    def load(self, number: int) -> SteeringLayer:
        """The layer for image `number` of a corpus; the drawings are used in turn.

        Raises:
            DataError: the drawing is of no use.
        """
        file = self._files[number % len(self)]
        data = self.member(number)
        layer = np.repeat(as_layer(decode_gray8(data))[..., None], 3, axis=2)
        return SteeringLayer(
            layer, printable(file.name), hashlib.sha256(data).hexdigest(), drawn=True
        )


def check_drawings(cfg: ControlInputConfig, size: tuple[int, int]) -> None:
    """Raise unless every drawing of `cfg` can be a layer of images of (height, width) px.

    Raises:
        ConfigError: there is none, or one of another kind.
        DataError: one is damaged, in colour, of another shape, or without lines.
    """
    if cfg.sketch is not None:
        for file in drawings(cfg.sketch):
            drawn_layer(file, *size)
