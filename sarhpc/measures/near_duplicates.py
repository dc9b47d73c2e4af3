"""Duplicates within a corpus: 256 bits an image that noise and gain hardly change.

The intensity is averaged in 16 x 16 cells; a bit says whether a cell is brighter than the one
before it in its row (the difference hash of image retrieval). In 128 px a cell averages 64 pixels.
Bits of different scenes agree by chance: their Hamming distance is close to normal around 128
(Daugman, IEEE Trans. CSVT 14(1) 2004, on codes of the iris), which tells how few bits may differ in
a corpus of any size.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from sarhpc.measures.features import amplitude

CELLS = 16
WORDS = CELLS * CELLS // 64
"""64-bit words of a code."""

Code = NDArray[np.uint64]


def scene_code(image: NDArray[Any]) -> Code:
    """Code (4,) of 256 bits of an image (H, W) of linear amplitude or 8-bit codes.

    Raises:
        ValueError: not two-dimensional, or a side below 16 px.
    """
    if image.ndim != 2 or min(image.shape) < CELLS:
        raise ValueError(f"image of shape {image.shape}: at least {CELLS} x {CELLS} px are needed")
    I = np.square(amplitude(image), dtype=np.float64)  # noqa: E741
    rows, columns = (np.arange(CELLS) * side // CELLS for side in I.shape)
    area = np.outer(np.diff(rows, append=I.shape[0]), np.diff(columns, append=I.shape[1]))
    cells = np.add.reduceat(np.add.reduceat(I, rows, axis=0), columns, axis=1) / area
    bits = cells > np.roll(cells, 1, axis=1)
    return np.packbits(bits).view(np.uint64)


def distances(codes: Code, code: Code) -> NDArray[np.int64]:
    """Bits (N,), 0 to 256, in which codes (N, 4) differ from one (4,)."""
    return np.asarray(np.bitwise_count(codes ^ code).sum(axis=1, dtype=np.int64))


def nearest(codes: Code) -> NDArray[np.int64]:
    """Distance (N,) of each of N codes to the nearest of the others, bits.

    Raises:
        ValueError: fewer than two codes.
    """
    if len(codes) < 2:
        raise ValueError(f"{len(codes)} codes have no neighbours: give at least 2")
    found = np.empty(len(codes), np.int64)
    for index, code in enumerate(codes):
        away = distances(codes, code)
        away[index] = 64 * WORDS
        found[index] = away.min()
    return found


def chance_distance(codes: Code, rate: float, corpus_size: int) -> int:
    """Bits within which an image has a neighbour by chance at `rate`, in a corpus of that size.

    By the normal law of the distances between pairs of N codes of different scenes (N, 4), for a
    rate of `rate` / `corpus_size` a pair. Scenes that look alike have more such pairs: hold it to
    `nearest` too.
    """
    pairs = np.concatenate([distances(codes[n + 1 :], code) for n, code in enumerate(codes)])
    bits = float(pairs.mean()) + float(norm.ppf(rate / corpus_size)) * float(pairs.std())
    return max(0, math.floor(bits))


@dataclass(frozen=True)
class ImageCode:
    """What tells an image from others: its scene, and its very pixels."""

    scene: bytes
    """The 32 bytes of `scene_code`."""
    digest: int
    """64 bits of the digest of the pixels."""

    @classmethod
    def of(cls, image: NDArray[Any]) -> ImageCode:
        """The code of an image (H, W).

        Raises:
            ValueError: see `scene_code`.
        """
        return cls(scene_code(image).tobytes(), int(_digest(image)))

    def to_text(self) -> str:
        """80 hexadecimal digits."""
        return f"{self.scene.hex()}{self.digest:016x}"

    @classmethod
    def from_text(cls, text: str) -> ImageCode:
        """The code that `to_text` wrote.

        Raises:
            ValueError: it is none.
        """
        if len(text) != 16 * (WORDS + 1):
            raise ValueError(f"{text!r:.90} is no code of an image")
        return cls(bytes.fromhex(text[: 16 * WORDS]), int(text[16 * WORDS :], 16))


class DuplicateIndex:
    """Images of a corpus so far: 40 bytes for each of at most `capacity`.

    Args:
        capacity: most images that it holds.
    """

    def __init__(self, capacity: int) -> None:
        # Word by word: four sums over short numbers take a quarter of the time of one over rows.
        self._words = np.zeros((WORDS, capacity), np.uint64)
        self._digests = np.zeros(capacity, np.uint64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def find(self, image: NDArray[Any]) -> tuple[int, int] | None:
        """Number of the nearest image and its distance in bits: -1 if it is the same, None if none.

        Raises:
            ValueError: see `scene_code`.
        """
        return self.find_code(ImageCode.of(image))

    def find_code(self, code: ImageCode) -> tuple[int, int] | None:
        """As `find`, by the code of an image."""
        if not self._size:
            return None
        same = np.flatnonzero(self._digests[: self._size] == np.uint64(code.digest))
        if same.size:
            return int(same[0]), -1
        away = np.zeros(self._size, np.uint16)
        for held, word in zip(self._words, np.frombuffer(code.scene, np.uint64), strict=True):
            away += np.bitwise_count(held[: self._size] ^ word)
        place = int(np.argmin(away))
        return place, int(away[place])

    def add(self, image: NDArray[Any]) -> int:
        """Hold an image, and return its number, counted from 0.

        Raises:
            ValueError: the index is full, or see `scene_code`.
        """
        return self.add_code(ImageCode.of(image))

    def add_code(self, code: ImageCode) -> int:
        """As `add`, by the code of an image.

        Raises:
            ValueError: the index is full.
        """
        if self._size == len(self._digests):
            raise ValueError(
                f"the index of duplicates is full at {self._size} images: give a "
                "capacity (`corpus_size` of the limits) of as many as the corpus has"
            )
        self._words[:, self._size] = np.frombuffer(code.scene, np.uint64)
        self._digests[self._size] = code.digest
        self._size += 1
        return self._size - 1


def _digest(image: NDArray[Any]) -> np.uint64:
    content = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8)
    return np.uint64(int.from_bytes(content.digest(), "little"))
