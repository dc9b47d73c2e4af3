"""CLIP (Radford et al. 2021) from a local folder: how well texts fit images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from hpc.errors import DataError
from sarhpc.captioning.captioners.pretrained import cpu_threads, load_parts, pick_dtype

_BUCKET = 8
"""Texts are padded to a multiple of this many word pieces."""

Directions = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A CLIP model with the image processor and tokenizer that belong to it."""

    model: CLIPModel
    processor: CLIPImageProcessorPil
    tokenizer: CLIPTokenizer


def load_clip(name: str | Path, device: str = "cpu", dtype: str | None = None) -> Clip:
    """CLIP from a folder, or from `HF_HOME` by its name; no network, no pickle, evaluation mode.

    Weights are float32 on a CPU, bfloat16 on CUDA, unless `dtype` says else.

    Raises:
        DataError: the files are missing or do not belong together.
    """
    classes = (CLIPModel, CLIPImageProcessorPil, CLIPTokenizer)
    model, processor, tokenizer = load_parts("CLIP", classes, name, pick_dtype(dtype, device))
    clip = Clip(model.to(device), processor, tokenizer)
    check_clip(clip, str(name))
    return clip


def check_clip(clip: Clip, name: str) -> None:
    """Raise DataError unless processor, tokenizer and model of `name` match each other.

    Raises:
        DataError: they do not.
    """
    image = clip.processor([np.zeros((8, 8, 3), np.uint8)], return_tensors="pt")["pixel_values"]
    made, side = tuple(image.shape[-2:]), clip.model.config.vision_config.image_size
    if made != (side, side):
        raise DataError(
            f"{name}: its processor makes images of {made[0]}x{made[1]} px, its model sees {side} "
            "px. Take processor and weights of one model."
        )
    text, tokenizer = clip.model.config.text_config, clip.tokenizer
    if len(tokenizer) > text.vocab_size:
        raise DataError(
            f"{name}: the tokenizer has {len(tokenizer)} word pieces, the model has room for "
            f"{text.vocab_size}."
        )
    # 2 stands in old files, for which the last word piece of the vocabulary ends a text.
    if text.eos_token_id not in (2, tokenizer.eos_token_id):
        raise DataError(f"{name}: tokenizer and model disagree on the piece that ends a text.")


class ClipScorer:
    """Images and texts as unit vectors, whose products are their similarities.

    Every forward pass has `batch` rows (the last repeated to fill it) and texts are padded to a
    multiple of eight word pieces: a vector depends on its own image or text alone.
    """

    def __init__(
        self, clip: Clip, *, name: str, revision: str, batch: int = 16, threads: int = 1
    ) -> None:
        self.name, self.revision, self.batch = name, revision, batch
        self._clip, self._threads = clip, threads
        self._positions = int(clip.model.config.text_config.max_position_embeddings)

    @property
    def width(self) -> int:
        """Elements of a direction."""
        return int(self._clip.model.config.projection_dim)

    @property
    def scale(self) -> float:
        """What the model multiplies similarities by before a softmax."""
        return float(self._clip.model.logit_scale.detach().float().exp())

    def see(self, images: Sequence[NDArray[np.uint8]]) -> Directions:
        """Directions (N, D) of images (H, W, 3)."""
        found = []
        with cpu_threads(self._threads), torch.inference_mode():
            for rows in self._filled(range(len(images))):
                batch = self._clip.processor([images[r] for r in rows], return_tensors="pt")
                pixels = batch["pixel_values"].to(self._clip.model.device, self._clip.model.dtype)
                found.append(_unit(self._clip.model.get_image_features(pixels).pooler_output))
        return np.concatenate(found)[: len(images)]

    def read(self, texts: Sequence[str]) -> Directions:
        """Directions (N, D) of texts; words past the model's positions (77) are not read."""
        ids = self._clip.tokenizer(
            list(texts), truncation=True, max_length=self._positions
        ).input_ids
        found: dict[int, NDArray[np.float32]] = {}
        with cpu_threads(self._threads), torch.inference_mode():
            for length in sorted({self._bucket(row) for row in ids}):
                alike = [r for r, row in enumerate(ids) if self._bucket(row) == length]
                for rows in self._filled(alike):
                    directions = self._read_batch([ids[r] for r in rows], length)
                    found |= dict(zip(rows, directions, strict=True))
        return np.stack([found[row] for row in range(len(texts))])

    def _bucket(self, ids: Sequence[int]) -> int:
        return min(-(-len(ids) // _BUCKET) * _BUCKET, self._positions)

    def _filled(self, rows: Sequence[int]) -> Iterator[list[int]]:
        for start in range(0, len(rows), self.batch):
            some = list(rows[start : start + self.batch])
            yield some + [some[-1]] * (self.batch - len(some))

    def _read_batch(self, ids: Sequence[Sequence[int]], length: int) -> Directions:
        device, end = self._clip.model.device, self._clip.tokenizer.eos_token_id
        padded = torch.tensor([[*row, *[end] * (length - len(row))] for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
        found = self._clip.model.get_text_features(
            padded.to(device), attention_mask=mask.to(device)
        )
        return _unit(found.pooler_output)


def _unit(features: torch.Tensor) -> Directions:
    directions = torch.nn.functional.normalize(features.float(), dim=-1)
    return np.asarray(directions.cpu().numpy(), np.float32)
