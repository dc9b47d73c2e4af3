"""GIT (Wang et al. 2022) from a local folder: one decoder over image patches and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertTokenizerFast, CLIPImageProcessorPil, GitForCausalLM

from hpc.errors import DataError
from sarhpc.captioning.captioners.pretrained import load_parts, pick_dtype


@dataclass(frozen=True)
class Git:
    """A GIT captioning model with the image processor and tokenizer that belong to it."""

    model: GitForCausalLM
    processor: CLIPImageProcessorPil
    tokenizer: BertTokenizerFast

    @property
    def positions(self) -> int:
        """Most word pieces of a text, its opening included."""
        return int(self.model.config.max_position_embeddings)

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Normalised images (N, 3, S, S): the middle square, resized with antialiasing."""
        batch = self.processor(list(images), return_tensors="pt")["pixel_values"]
        return batch.to(self.model.device, self.model.dtype)

    def opening(self, prompt: str) -> torch.Tensor:
        """Word pieces (1, P + 1) of [CLS] `prompt`: how every text of this model begins."""
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
        return torch.tensor([[self.tokenizer.cls_token_id, *ids]], device=self.model.device)

    def write(self, pixels: torch.Tensor, opening: torch.Tensor, **options: Any) -> torch.Tensor:
        """Word pieces that go on from `opening`; `options` are those of `generate`."""
        start = opening.repeat(len(pixels), 1)
        ids = self.model.generate(
            pixel_values=pixels,
            input_ids=start,
            attention_mask=torch.ones_like(start),
            eos_token_id=self.tokenizer.sep_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            **options,
        )
        return ids[:, opening.shape[1] :]

    def texts(self, ids: torch.Tensor) -> list[str]:
        """The words of rows of word pieces."""
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)


def load_git(name: str | Path, device: str = "cpu", dtype: str | None = None) -> Git:
    """GIT from a folder, or from `HF_HOME` by its name; no network, no pickle, evaluation mode.

    Weights are float32 on a CPU, bfloat16 on CUDA, unless `dtype` says else.

    Raises:
        DataError: the files are missing or do not belong together, or it is a GIT for videos.
    """
    classes = (GitForCausalLM, CLIPImageProcessorPil, BertTokenizerFast)
    model, processor, tokenizer = load_parts("GIT", classes, name, pick_dtype(dtype, device))
    git = Git(model.to(device), processor, tokenizer)
    check_git(git, str(name))
    return git


def check_git(git: Git, name: str) -> None:
    """Raise DataError unless processor, tokenizer and model of `name` match each other.

    Raises:
        DataError: they do not.
    """
    config, tokenizer = git.model.config, git.tokenizer
    if config.num_image_with_embedding:
        raise DataError(
            f"{name} captions {config.num_image_with_embedding} frames of a video: take a GIT for "
            "single images."
        )
    made = git.pixels([np.zeros((8, 8, 3), np.uint8)]).shape[-2:]
    side = config.vision_config.image_size
    if tuple(made) != (side, side):
        raise DataError(
            f"{name}: its processor makes images of {made[0]}x{made[1]} px, its model sees {side} "
            "px. Take processor and weights of one model."
        )
    if len(tokenizer) > config.vocab_size:
        raise DataError(
            f"{name}: the tokenizer has {len(tokenizer)} word pieces, the model has room for "
            f"{config.vocab_size}."
        )
    if (tokenizer.cls_token_id, tokenizer.sep_token_id) != (
        config.bos_token_id,
        config.eos_token_id,
    ):
        raise DataError(f"{name}: tokenizer and model disagree on [CLS] or [SEP].")
