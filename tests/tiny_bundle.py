"""A bundle of real, random, tiny models, and what a pipeline of such paints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CAPTIONS = (
    "a forest beside a river",
    "a village with many roofs",
    "fields crossed by a road",
    "a bare slope above a lake",
)


def make_bundle(folder: Path, *, xl: bool = False, captions: Sequence[str] = CAPTIONS) -> Path:
    """A diffusers folder of real, random, tiny models: 32 px tiles, 4 x 4 latents."""
    from sarhpc.diffusion.bundle import new_bundle, save_bundle
    from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
    from sarhpc.diffusion.tokenizer import train_clip_tokenizer

    deep = {"level_heads": [1, 2], "transformer_layers": [1, 2], "size_embedding": 8}
    levels: dict[str, Any] = deep if xl else {}
    second = TextShape(24, layers=2, heads=2, intermediate=32, positions=16, activation="gelu")
    shapes = BundleConfig(
        unet=UNetShape(4, [8, 16], [not xl, xl], attention_heads=2, norm_groups=4, **levels),
        text=TextShape(hidden=16, layers=2, heads=2, intermediate=32, positions=16),
        text_2=second if xl else None,
        vae=AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=32),
    )
    tokenizer = train_clip_tokenizer(captions, 540, folder / "tokenizer", max_length=16)
    save_bundle(new_bundle(shapes, tokenizer), folder / "base")
    return folder / "base"


def paint(pipeline: Any, prompt: str = "a forest") -> NDArray[np.float32]:
    """Images (1, H, W, 3) of a stock pipeline, the same ones each time."""
    import torch

    pipeline.set_progress_bar_config(disable=True)
    images: NDArray[np.float32] = pipeline(
        prompt,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    return images
