"""Stable Diffusion 1.5: one CLIP text encoder, conditioning on its last layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
from sarhpc.diffusion.families.family import Conditioning, ModelFamily, TextEncoder

if TYPE_CHECKING:
    from torch import Tensor, nn

CLIP_TOKENS = 49408
CLIP_L = TextShape(hidden=768, layers=12, heads=12, intermediate=3072)


def autoencoder_shape(sample_size: int) -> AutoencoderShape:
    """The published autoencoder, for tiles of `sample_size` px."""
    return AutoencoderShape([128, 256, 512, 512], 2, 32, sample_size, mid_attention=True)


def _condition(encoders: Sequence[Any], conditions: Sequence[Tensor]) -> Conditioning:
    [encoder], [token_ids] = encoders, conditions
    return encoder(token_ids)[0], None


def _unused(encoders: Sequence[Any]) -> Iterator[nn.Module]:
    yield from ()


_UNCHECKED = {"safety_checker": None, "requires_safety_checker": False}

SD15 = ModelFamily(
    key="sd15",
    name="SD 1.5",
    title="Stable Diffusion 1.5",
    name_part="",
    backbone="unet",
    backbone_class="UNet2DConditionModel",
    encoders=(
        TextEncoder(
            folder="text_encoder",
            tokenizer="tokenizer",
            model="CLIPTextModel",
            embedding_key="clip_l",
            original_prefix="cond_stage_model.transformer.text_model.",
        ),
    ),
    latent_channels=4,
    size_ids=0,
    pipeline="StableDiffusionPipeline",
    control_pipeline="StableDiffusionControlNetPipeline",
    image_pipeline="StableDiffusionImg2ImgPipeline",
    control_image_pipeline="StableDiffusionControlNetImg2ImgPipeline",
    loading_options=_UNCHECKED,
    building_options={**_UNCHECKED, "feature_extractor": None},
    published=BundleConfig(
        vocab_size=CLIP_TOKENS,
        unet=UNetShape(
            sample_size=64,
            block_out_channels=[320, 640, 1280, 1280],
            cross_attention=[True, True, True, False],
            layers_per_block=2,
            attention_heads=8,
        ),
        text=CLIP_L,
        vae=autoencoder_shape(512),
    ),
    condition=_condition,
    unused_modules=_unused,
)
