"""A Stable Diffusion pipeline of the real classes, with random weights and the real tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sarhpc.generation.config import GenerateConfig


def build_pipeline(tokenizer: Path) -> Any:
    """A pipeline for 16 px images, of about 2 M parameters (most of them word embeddings)."""
    import torch
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(str(tokenizer)),
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="session")
def model_folder(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = test_data / "tokenizers" / "sd1_clip_hf"
    if not tokenizer.is_dir():
        pytest.skip(f"no CLIP tokenizer at {tokenizer}: set SARHPC_TEST_DATA to its folder")
    folder = tmp_path_factory.mktemp("model") / "tiny-sd"
    build_pipeline(tokenizer).save_pretrained(str(folder), safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def pipeline(model_folder: Path) -> Any:
    from sarhpc.generation.model import load_pipeline

    return load_pipeline(model_folder, GenerateConfig(), "cpu")
