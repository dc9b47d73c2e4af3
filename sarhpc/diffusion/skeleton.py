"""The models of a bundle in their shapes alone, for counting: no weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from hpc.errors import DataError
from sarhpc.diffusion.architecture import new_unet, text_config
from sarhpc.diffusion.autoencoder import new_autoencoder
from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
from sarhpc.diffusion.single_file import is_single_file, shapes_beside

_CLIP_TOKENS = 49408
_CLIP_L = TextShape(hidden=768, layers=12, heads=12, intermediate=3072)


def _autoencoder(sample_size: int) -> AutoencoderShape:
    return AutoencoderShape([128, 256, 512, 512], 2, 32, sample_size, mid_attention=True)


PUBLISHED = {
    "Stable Diffusion 1.5": BundleConfig(
        vocab_size=_CLIP_TOKENS,
        unet=UNetShape(
            sample_size=64,
            block_out_channels=[320, 640, 1280, 1280],
            cross_attention=[True, True, True, False],
            layers_per_block=2,
            attention_heads=8,
        ),
        text=_CLIP_L,
        vae=_autoencoder(512),
    ),
    "Stable Diffusion XL": BundleConfig(
        vocab_size=_CLIP_TOKENS,
        unet=UNetShape(
            sample_size=128,
            block_out_channels=[320, 640, 1280],
            cross_attention=[False, True, True],
            layers_per_block=2,
            level_heads=[5, 10, 20],
            transformer_layers=[1, 2, 10],
        ),
        text=_CLIP_L,
        text_2=TextShape(1280, layers=32, heads=20, intermediate=5120, activation="gelu"),
        vae=_autoencoder(1024),
    ),
}
"""The shapes that models are published in, by name; those of configs/bundles."""


@dataclass(frozen=True)
class Skeleton:
    """Models on the meta device, which have no numbers, by the names of a bundle's folders."""

    models: dict[str, Any]
    """U-Net and text encoders."""
    vae: AutoencoderKL
    origin: str
    """Where the shapes are from."""


def skeleton_of(base: Path) -> Skeleton:
    """The models of diffusers folder `base`, or of what its name stands for if it is not there.

    A name with `xl` in it then stands for Stable Diffusion XL, any other for 1.5. A checkpoint in
    one file has the shapes in the folder beside it.

    Raises:
        DataError: the folder is there and is no bundle.
    """
    if is_single_file(base) and base.exists():
        return _from_folder(shapes_beside(base))
    if base.is_dir():
        return _from_folder(base)
    name = "Stable Diffusion XL" if "xl" in base.name.lower() else "Stable Diffusion 1.5"
    return published_skeleton(name)


def published_skeleton(name: str) -> Skeleton:
    """The models of a published kind, a key of `PUBLISHED`."""
    shapes = PUBLISHED[name]
    with torch.device("meta"):
        models: dict[str, Any] = {
            "unet": new_unet(shapes),
            "text_encoder": CLIPTextModel(text_config(shapes.text, shapes.vocab_size)),
        }
        if shapes.text_2 is not None:
            config = text_config(shapes.text_2, shapes.vocab_size)
            models["text_encoder_2"] = CLIPTextModelWithProjection(config)
        vae = new_autoencoder(shapes.vae, 0)
    return Skeleton(models, vae, f"the published shapes of {name}")


def _from_folder(base: Path) -> Skeleton:
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    try:
        with torch.device("meta"):
            models: dict[str, Any] = {"unet": _built(UNet2DConditionModel, base / "unet")}
            for part, kind in kinds.items():
                if (base / part).is_dir():
                    config = CLIPTextConfig.from_pretrained(base / part, local_files_only=True)
                    models[part] = kind(config)
            vae = _built(AutoencoderKL, base / "vae")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{base} is no diffusers folder whose shapes can be read: {error}"
        ) from error
    return Skeleton(models, vae, str(base))


def _built(kind: Any, folder: Path) -> Any:
    return kind.from_config(kind.load_config(folder, local_files_only=True))
