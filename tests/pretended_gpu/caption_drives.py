"""Captioners and their fine-tuning on the pretended GPU."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device import REPOSITORY, counted
from loading import work_folder
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import _disable_current_modes
from train_drives import OneGpu

from sarhpc.captioning.captioners.blip import load_blip
from sarhpc.captioning.captioners.clip import load_clip
from sarhpc.captioning.captioners.writer import WritingCaptioner
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.contrastive.batches import collate as collate_tiles
from sarhpc.captioning.contrastive.loss import Directions, contrastive_loss, text_digests
from sarhpc.captioning.contrastive.tiles import CaptionedTile
from sarhpc.captioning.tuning.batches import collate
from sarhpc.captioning.tuning.finetune import _start, load_published
from sarhpc.captioning.tuning.task import CaptionLoss
from sarhpc.shards.transfer import to_device

BLIP = REPOSITORY / "sarhpc" / "embedded" / "blip"
CLIP = REPOSITORY / "sarhpc" / "embedded" / "clip"


def _images() -> list[NDArray[np.uint8]]:
    return [
        np.random.default_rng(n).integers(0, 255, (128, 128, 3), dtype=np.uint8) for n in range(2)
    ]


def caption(**options: Any) -> dict[str, Any]:
    """Captions of two images."""
    blip = load_blip(BLIP, "cuda:0")
    captioner = WritingCaptioner(blip, batch=2, max_tokens=8, **options)
    with counted() as counts:
        texts = captioner.caption(_images())
    return {**counts.as_json(), "texts": texts, "dtype": str(blip.model.dtype)}


def fine_tune(precision: str) -> dict[str, Any]:
    """The weights that a fine-tuning starts from, and one of its passes."""
    base = _in_fp32()
    cfg = CaptionTrainConfig(base_model=str(base), batch=2, precision=precision)
    blip = _start(cfg, [], "cuda:0")
    changed = _changed(blip.model, base / "model.safetensors")
    scored_in = str(blip.model.dtype)
    published_in = str(load_published(base, OneGpu()).model.dtype)
    module = CaptionLoss(blip.model, 0.0)
    if precision == "bf16":
        module.to(torch.bfloat16)
    pairs = [(image, "a forest beside a river") for image in _images()]

    def passed() -> torch.Tensor:
        """The loss of a pass, with gradients behind it."""
        loss: torch.Tensor = module(*collate(blip, pairs, cfg).inputs)
        loss.backward()
        return loss

    passed()
    with counted() as counts:
        loss = passed()
    facts = {"changed": changed, "scored_in": scored_in, "published_in": published_in}
    return {**counts.as_json(), **facts, "loss": loss.item()}


def contrast() -> dict[str, Any]:
    """One of the passes of a contrastive fine-tuning."""
    clip = load_clip(CLIP, "cuda:0", "float32")
    module = Directions(clip.model)
    texts = ["a forest beside a river", "a town"]
    tiles = [CaptionedTile(text, i, text) for i, text in zip(_images(), texts, strict=True)]

    def passed() -> torch.Tensor:
        """The loss of a pass, with gradients behind it."""
        [names] = to_device([text_digests(texts)], torch.device("cuda:0"))
        images, vectors, scale = module(*collate_tiles(clip, tiles))
        loss, _ = contrastive_loss(images, vectors, scale, names)
        loss.backward()
        return loss

    passed()
    with counted() as counts:
        loss = passed()
    return {**counts.as_json(), "loss": loss.item()}


@functools.cache
def _in_fp32() -> Path:
    """The embedded BLIP with weights that fp16 cannot hold."""
    folder = work_folder() / "blip"
    shutil.copytree(BLIP, folder)
    path = folder / "model.safetensors"
    with _disable_current_modes():
        weights = {name: weight.float() for name, weight in load_file(path).items()}
        changed = {name: weight * 1.0001 + 1e-6 for name, weight in weights.items()}
        save_file(changed, path, metadata={"format": "pt"})
    return folder


def _changed(model: torch.nn.Module, file: Path) -> list[str]:
    """Names of the weights that are not those of the file, in fp32."""
    stored = load_file(file)
    return [
        name
        for name, weight in model.state_dict().items()
        if name in stored and not torch.equal(weight.cpu(), stored[name].float())
    ]


CAPTION_DRIVES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "blip beam": caption,
    "blip nucleus": lambda: caption(decoding="nucleus"),
    "blip training fp32": lambda: fine_tune("fp32"),
    "blip training bf16": lambda: fine_tune("bf16"),
    "clip training": contrast,
}
