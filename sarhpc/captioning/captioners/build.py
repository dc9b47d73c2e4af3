"""A new BLIP of any size, with random weights."""

from __future__ import annotations

import torch
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
)

from sarhpc.captioning.captioners.blip import Blip, check_blip
from sarhpc.captioning.checks import check_model_shape
from sarhpc.captioning.config import BlipModelConfig

_INITIAL_STD = 0.02


def new_blip(cfg: BlipModelConfig, tokenizer: BertTokenizerFast, seed: int = 0) -> Blip:
    """BLIP of the shape `cfg` for the words of `tokenizer`; equal seeds give equal weights.

    A tokenizer without BLIP's own [DEC] and [ENC] is given them.

    Raises:
        ConfigError: the sizes do not fit each other.
    """
    check_model_shape(cfg)
    if tokenizer.bos_token is None:
        tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BlipForConditionalGeneration(_blip_config(cfg, tokenizer))
    size = {"height": cfg.image_px, "width": cfg.image_px}
    blip = Blip(model.eval(), BlipImageProcessorPil(size=size), tokenizer)
    check_blip(blip, "the new BLIP")
    return blip


def _blip_config(cfg: BlipModelConfig, tokenizer: BertTokenizerFast) -> BlipConfig:
    vision = {
        "hidden_size": cfg.vision_width,
        "intermediate_size": 4 * cfg.vision_width,
        "num_hidden_layers": cfg.vision_layers,
        "num_attention_heads": cfg.vision_heads,
        "image_size": cfg.image_px,
        "patch_size": cfg.patch_px,
        # The library's default (1e-10) is meant for weights that are loaded over it.
        "initializer_range": _INITIAL_STD,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": cfg.text_width,
        "intermediate_size": 4 * cfg.text_width,
        "num_hidden_layers": cfg.text_layers,
        "num_attention_heads": cfg.text_heads,
        "max_position_embeddings": cfg.max_positions,
        "initializer_range": _INITIAL_STD,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return BlipConfig(text_config=text, vision_config=vision)
