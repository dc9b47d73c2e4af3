"""BLIP from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertTokenizerFast, BlipForConditionalGeneration, BlipImageProcessorPil

from hpc.errors import DataError
from sarhpc.captioning.captioners.pretrained import load_parts, pick_dtype
from sarhpc.shards.transfer import to_device


@dataclass(frozen=True)
class Blip:
    """A BLIP captioning model with the image processor and tokenizer that belong to it."""

    model: BlipForConditionalGeneration
    processor: BlipImageProcessorPil
    tokenizer: BertTokenizerFast

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Normalised images (N, 3, S, S) of the model's size, resized with antialiasing."""
        [batch] = to_device([self.host_pixels(images)], self.device)
        return batch.to(self.model.dtype)

    def host_pixels(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """The same in float32 on the CPU."""
        batch: torch.Tensor = self.processor(list(images), return_tensors="pt")["pixel_values"]
        return batch

    def opening_length(self, prompt: str) -> int:
        """Word pieces of an opening."""
        return len(self.tokenizer(prompt).input_ids)

    def opening(self, prompt: str) -> torch.Tensor:
        """Word pieces (1, P + 2) of [DEC] `prompt` [SEP]: how every text of this model begins."""
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids
        ids[:, 0] = self.model.config.text_config.bos_token_id
        return ids.to(self.device)

    @property
    def positions(self) -> int:
        """Most word pieces of a text, its opening included."""
        return int(self.model.config.text_config.max_position_embeddings)

    def write(self, pixels: torch.Tensor, opening: torch.Tensor, **options: Any) -> torch.Tensor:
        """Word pieces that go on from `opening`; `options` are those of `generate`."""
        ids = self.model.generate(
            pixel_values=pixels, input_ids=opening.repeat(len(pixels), 1), **options
        )
        # What was given lacks its [SEP], in whose place the caption begins.
        return ids[:, opening.shape[1] - 1 :]

    def texts(self, ids: torch.Tensor) -> list[str]:
        """The words of rows of word pieces."""
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write model (safetensors of `dtype`), processor and tokenizer into `folder`."""
        state = {name: tensor.to(dtype) for name, tensor in self.model.state_dict().items()}
        self.model.save_pretrained(folder, state_dict=state)
        self.processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_blip(name: str | Path, device: str = "cpu", dtype: str | None = None) -> Blip:
    """BLIP from a folder, or from `HF_HOME` by its name; no network, no pickle, evaluation mode.

    Weights are float32 on a CPU whatever the file holds, float16 on CUDA, unless `dtype` says else.

    Raises:
        DataError: the files are missing or do not belong together.
    """
    classes = (BlipForConditionalGeneration, BlipImageProcessorPil, BertTokenizerFast)
    numbers = pick_dtype(dtype, device, on_cuda="float16")
    model, processor, tokenizer = load_parts("BLIP", classes, name, numbers)
    blip = Blip(model.to(device), processor, tokenizer)
    check_blip(blip, str(name))
    return blip


def check_blip(blip: Blip, name: str) -> None:
    """Raise DataError unless processor, tokenizer and model of `name` match each other.

    With a processor of another image size BLIP repeats one word endlessly.

    Raises:
        DataError: they do not.
    """
    config, size = blip.model.config, blip.processor.size
    side = config.vision_config.image_size
    if (size["height"], size["width"]) != (side, side):
        raise DataError(
            f"{name}: its processor makes images of {size['height']}x{size['width']} px, its "
            f"model sees {side} px. Take processor and weights of one model."
        )
    text = config.text_config
    if max(len(blip.tokenizer), text.bos_token_id + 1) > text.vocab_size:
        raise DataError(
            f"{name}: the tokenizer has {len(blip.tokenizer)} word pieces and [DEC] is number "
            f"{text.bos_token_id}, the model has room for {text.vocab_size}."
        )
    if (blip.tokenizer.sep_token_id, blip.tokenizer.pad_token_id) != (
        text.sep_token_id,
        text.pad_token_id,
    ):
        raise DataError(f"{name}: tokenizer and model disagree on [SEP] or [PAD].")
