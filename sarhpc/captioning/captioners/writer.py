"""Captioners that generate text token by token: batched, in fixed shapes, deterministic."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from hpc.errors import ConfigError, DataError
from sarhpc.captioning.captioners.pretrained import cpu_threads

Rgb = NDArray[np.uint8]


class WritingModel(Protocol):
    """An image-to-text model, as far as captioning asks it: BLIP, GIT."""

    @property
    def positions(self) -> int:
        """Most word pieces of a text, its opening included."""
        ...

    def pixels(self, images: Sequence[Rgb]) -> torch.Tensor:
        """Normalised images (N, 3, S, S)."""
        ...

    def opening(self, prompt: str) -> torch.Tensor:
        """Word pieces (1, P) every text begins with."""
        ...

    def write(self, pixels: torch.Tensor, opening: torch.Tensor, **options: Any) -> torch.Tensor:
        """Word pieces that go on from `opening`, (N x returned sequences, L)."""
        ...

    def texts(self, ids: torch.Tensor) -> list[str]:
        """The words of rows of word pieces."""
        ...


class WritingCaptioner:
    """Captions that depend on the image (and key) alone: not on neighbours, order, batch filling.

    Every forward pass has `batch` images (a short batch repeats its last), a fixed number of
    threads and evaluation mode. `nucleus` draws with seeds made of `seed` and the tile's key, or
    of the image's own bytes where no key is given.
    """

    def __init__(
        self,
        model: WritingModel,
        *,
        name: str = "blip",
        revision: str = "",
        batch: int = 16,
        max_tokens: int = 40,
        decoding: str = "beam",
        beams: int = 3,
        top_p: float = 0.9,
        temperature: float = 1.0,
        seed: int = 0,
        threads: int = 1,
        prompt: str = "",
    ) -> None:
        if decoding not in ("beam", "nucleus"):
            raise ConfigError(f"caption.decoding={decoding!r}: take `beam` or `nucleus`.")
        self.name, self.revision = name, revision
        self._model, self._batch, self._threads, self._seed = model, batch, threads, seed
        self._beams = beams if decoding == "beam" else 1
        self._warpers = (
            [TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)]
            if decoding == "nucleus"
            else []
        )
        self._opening = model.opening(prompt)
        self._max_tokens = min(max_tokens, model.positions - self._opening.shape[1])

    def caption(self, images: list[Rgb]) -> list[str]:
        """One caption per image (H, W, 3) of 8 bits.

        Raises:
            DataError: an array is no such image.
        """
        return [first for (first, *_) in self._propose(images, map(_image_name, images), 1)]

    def propose(self, images: list[Rgb], keys: Sequence[str], count: int) -> list[list[str]]:
        """Up to `count` different captions per image (H, W, 3), the likeliest first if by beams.

        Args:
            images: those to describe.
            keys: of their tiles, one each; `nucleus` draws for them.
            count: captions requested of each image; with beams no more than there are beams.

        Raises:
            ConfigError: more captions than beams.
            DataError: an array is no such image.
        """
        if not self._warpers and count > self._beams:
            raise ConfigError(f"{self._beams} beams cannot give {count} captions: raise the beams.")
        return self._propose(images, (key.encode() for key in keys), count)

    def _propose(self, images: list[Rgb], names: Any, count: int) -> list[list[str]]:
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise DataError(
                    f"cannot caption an array of shape {image.shape} and dtype {image.dtype}: "
                    "expected an (H, W, 3) uint8 image."
                )
        named, said = list(zip(images, names, strict=True)), []
        with cpu_threads(self._threads):
            for start in range(0, len(named), self._batch):
                said += self._propose_batch(named[start : start + self._batch], count)
        return [list(dict.fromkeys(texts)) for texts in said]

    def _propose_batch(self, named: list[tuple[Rgb, bytes]], count: int) -> list[list[str]]:
        filled = named + [named[-1]] * (self._batch - len(named))
        pixels = self._model.pixels([image for image, _ in filled])
        if not self._warpers:
            texts = self._write(pixels, num_return_sequences=count)
            rows = [texts[row * count : (row + 1) * count] for row in range(len(filled))]
        else:
            names = [name for _, name in filled]
            draws = [self._draw(pixels, names, number) for number in range(count)]
            rows = [list(drawn) for drawn in zip(*draws, strict=True)]
        return rows[: len(named)]

    def _draw(self, pixels: torch.Tensor, names: Sequence[bytes], number: int) -> list[str]:
        noise = _GumbelNoise([_draw_seed(self._seed, name, number) for name in names])
        return self._write(pixels, logits_processor=LogitsProcessorList([*self._warpers, noise]))

    def _write(self, pixels: torch.Tensor, **options: Any) -> list[str]:
        ids = self._model.write(
            pixels,
            self._opening,
            num_beams=self._beams,
            do_sample=False,
            max_new_tokens=self._max_tokens,
            **options,
        )
        return [text.strip() for text in self._model.texts(ids)]


class _GumbelNoise(LogitsProcessor):
    """Logits plus Gumbel noise, one generator per row: their maximum is a draw of the softmax.

    `generate` itself draws from one stream for the whole batch, where neighbours matter.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        size = scores.shape[1]
        uniform = torch.stack([torch.rand(size, generator=g) for g in self._generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores + noise.to(scores.device, scores.dtype)


def _image_name(image: Rgb) -> bytes:
    return f"{image.shape}:".encode() + image.tobytes()


def _draw_seed(seed: int, name: bytes, number: int) -> int:
    drawn = f"{number}:".encode() if number else b""
    digest = hashlib.sha256(f"{seed}:".encode() + drawn + name).digest()
    return int.from_bytes(digest[:8]) >> 1
