"""Stable Diffusion XL: two text encoders and micro-conditioning on image sizes.

Podell et al., SDXL (arXiv:2307.01952), section 2.2 and table 1: the penultimate layers of both
encoders concatenated, the pooled embedding of the second, and original size, crop offset and target
size as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sarhpc.diffusion.config import BundleConfig, TextShape, UNetShape
from sarhpc.diffusion.families.family import Conditioning, ModelFamily, TextEncoder
from sarhpc.diffusion.families.sd15 import CLIP_L, CLIP_TOKENS, autoencoder_shape

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZE_IDS = 6
"""Original size, crop offset and target size, two numbers each."""


def _condition(encoders: Sequence[Any], conditions: Sequence[Tensor]) -> Conditioning:
    import torch

    token_ids, token_ids_2, size_ids = conditions
    first = encoders[0](token_ids, output_hidden_states=True)
    second = encoders[1](token_ids_2, output_hidden_states=True)
    context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return context, micro_conditioning(second.text_embeds, size_ids)


def micro_conditioning(pooled: Tensor, size_ids: Tensor) -> dict[str, Tensor]:
    """Further conditioning of the U-Net: pooled embedding (B, P) and size ids (B, 6)."""
    return {"text_embeds": pooled, "time_ids": size_ids}


def _unused(encoders: Sequence[Any]) -> Iterator[nn.Module]:
    """Yield the last layer of the first encoder and its final norm: they get no gradient."""
    # The bare CLIP model is nested one level deeper in some versions of transformers.
    text = getattr(encoders[0], "text_model", encoders[0])
    yield text.encoder.layers[-1]
    yield text.final_layer_norm


_UNMARKED = {"add_watermarker": False}

SDXL = ModelFamily(
    key="sdxl",
    name="SDXL",
    title="Stable Diffusion XL",
    name_part="xl",
    backbone="unet",
    backbone_class="UNet2DConditionModel",
    encoders=(
        TextEncoder(
            folder="text_encoder",
            tokenizer="tokenizer",
            model="CLIPTextModel",
            embedding_key="clip_l",
            original_prefix="conditioner.embedders.0.transformer.text_model.",
        ),
        TextEncoder(
            folder="text_encoder_2",
            tokenizer="tokenizer_2",
            model="CLIPTextModelWithProjection",
            embedding_key="clip_g",
            original_prefix="conditioner.embedders.1.model.",
        ),
    ),
    latent_channels=4,
    size_ids=SIZE_IDS,
    pipeline="StableDiffusionXLPipeline",
    control_pipeline="StableDiffusionXLControlNetPipeline",
    image_pipeline="StableDiffusionXLImg2ImgPipeline",
    control_image_pipeline="StableDiffusionXLControlNetImg2ImgPipeline",
    loading_options=_UNMARKED,
    # Dropped captions are trained as the empty prompt, so that is what an absent negative prompt
    # must mean, not zeros in place of its embedding.
    building_options={**_UNMARKED, "force_zeros_for_empty_prompt": False},
    published=BundleConfig(
        vocab_size=CLIP_TOKENS,
        unet=UNetShape(
            sample_size=128,
            block_out_channels=[320, 640, 1280],
            cross_attention=[False, True, True],
            layers_per_block=2,
            level_heads=[5, 10, 20],
            transformer_layers=[1, 2, 10],
        ),
        text=CLIP_L,
        text_2=TextShape(1280, layers=32, heads=20, intermediate=5120, activation="gelu"),
        vae=autoencoder_shape(1024),
    ),
    condition=_condition,
    unused_modules=_unused,
)
