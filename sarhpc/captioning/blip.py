"""BLIP from a local folder: batched, in fixed shapes, and the same words every time."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    BertTokenizerFast,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from hpc.errors import ConfigError, DataError
from hpc.publish import digest_file
from sarhpc.captioning.config import CaptionConfig


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
        batch = self.processor(list(images), return_tensors="pt")["pixel_values"]
        return batch.to(self.device, self.model.dtype)

    def opening(self, prompt: str) -> torch.Tensor:
        """Word pieces (1, P + 2) of [DEC] `prompt` [SEP]: how every text of this model begins."""
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids
        ids[:, 0] = self.model.config.text_config.bos_token_id
        return ids.to(self.device)

    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write model (safetensors of `dtype`), processor and tokenizer into `folder`."""
        state = {name: tensor.to(dtype) for name, tensor in self.model.state_dict().items()}
        self.model.save_pretrained(folder, state_dict=state)
        self.processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_blip(name: str | Path, device: str = "cpu") -> Blip:
    """BLIP from a folder, or from `HF_HOME` by its name; no network, no pickle, evaluation mode.

    Weights are float32 on a CPU whatever the file holds, float16 on CUDA.

    Raises:
        DataError: the files are missing or do not belong together.
    """
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    try:
        model, found = BlipForConditionalGeneration.from_pretrained(
            name,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        processor = BlipImageProcessorPil.from_pretrained(name, local_files_only=True)
        tokenizer = BertTokenizerFast.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"cannot load BLIP from {name}: {error}. It must be a folder with config.json, "
            "model.safetensors, preprocessor_config.json and tokenizer files, or a model that "
            "`sarhpc fetch` has brought to HF_HOME."
        ) from error
    if found["missing_keys"]:
        # The library would go on with random numbers in their place.
        raise DataError(
            f"{name} lacks {len(found['missing_keys'])} weights of BLIP, among them "
            f"{min(found['missing_keys'])}: fetch or export it again."
        )
    blip = Blip(model.to(device).eval(), processor, tokenizer)
    check_blip(blip, str(name))
    return blip


def check_blip(blip: Blip, name: str) -> None:
    """Return if processor, tokenizer and model of `name` fit each other.

    A processor of another image size is what makes BLIP say one word for ever.

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


def weights_digest(folder: Path) -> str:
    """SHA-256 over the safetensors files of a model folder, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {digest_file(path).sha256}\n".encode())
    return digest.hexdigest()


def pick_device(device: str) -> str:
    """`device`, with `auto` settled: CUDA where there is one, else the CPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads inside the block, as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class BlipCaptioner:
    """Captions by BLIP that depend on the image alone: not on neighbours, order or batch filling.

    Every forward pass has `batch` images (a short batch repeats its last), a fixed number of
    threads and evaluation mode. `nucleus` draws each caption with a seed made of `seed` and the
    image's own bytes.
    """

    def __init__(
        self,
        blip: Blip,
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
        self._blip, self._batch, self._threads, self._seed = blip, batch, threads, seed
        self._beams = beams if decoding == "beam" else 1
        self._warpers = (
            [TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)]
            if decoding == "nucleus"
            else []
        )
        self._opening = blip.opening(prompt)
        room = blip.model.config.text_config.max_position_embeddings - self._opening.shape[1]
        self._max_tokens = min(max_tokens, room)

    def caption(self, images: list[NDArray[np.uint8]]) -> list[str]:
        """One caption per image (H, W, 3) of 8 bits.

        Raises:
            DataError: an array is no such image.
        """
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise DataError(
                    f"cannot caption an array of shape {image.shape} and dtype {image.dtype}: "
                    "expected an (H, W, 3) uint8 image."
                )
        texts: list[str] = []
        with cpu_threads(self._threads):
            for start in range(0, len(images), self._batch):
                texts += self._caption_batch(images[start : start + self._batch])
        return texts

    def _caption_batch(self, images: list[NDArray[np.uint8]]) -> list[str]:
        filled = images + [images[-1]] * (self._batch - len(images))
        ids = self._blip.model.generate(
            pixel_values=self._blip.pixels(filled),
            input_ids=self._opening.repeat(len(filled), 1),
            num_beams=self._beams,
            do_sample=False,
            max_new_tokens=self._max_tokens,
            logits_processor=LogitsProcessorList(self._draws(filled)),
        )
        new = ids[: len(images), self._opening.shape[1] - 1 :]
        texts = self._blip.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _draws(self, images: Sequence[NDArray[np.uint8]]) -> list[LogitsProcessor]:
        if not self._warpers:
            return []
        seeds = [_image_seed(self._seed, image) for image in images]
        return [*self._warpers, _GumbelNoise(seeds)]


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


def _image_seed(seed: int, image: NDArray[np.uint8]) -> int:
    digest = hashlib.sha256(f"{seed}:{image.shape}:".encode() + image.tobytes()).digest()
    return int.from_bytes(digest[:8]) >> 1


def open_blip_captioner(cfg: CaptionConfig) -> BlipCaptioner:
    """The BLIP captioner `cfg` describes, from its folder.

    Raises:
        ConfigError: an unknown way of decoding.
        DataError: the model cannot be loaded.
    """
    folder = Path(cfg.model)
    blip = load_blip(cfg.model, pick_device(cfg.device))
    revision = (
        weights_digest(folder)[:16]
        if folder.is_dir()
        else str(getattr(blip.model.config, "_commit_hash", None) or "")
    )
    return BlipCaptioner(
        blip,
        name=folder.name if folder.is_dir() else cfg.model,
        revision=revision,
        batch=cfg.batch,
        max_tokens=cfg.max_tokens,
        decoding=cfg.decoding,
        beams=cfg.beams,
        top_p=cfg.top_p,
        temperature=cfg.temperature,
        seed=cfg.seed,
        threads=cfg.threads,
        prompt=cfg.prompt,
    )
