"""A new CLIP of any size, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from sarhpc.captioning.captioners.clip import Clip, check_clip
from sarhpc.captioning.contrastive.config import ClipModelConfig


def new_clip(cfg: ClipModelConfig, tokenizer: CLIPTokenizer, seed: int = 0) -> Clip:
    """CLIP of the shape `cfg` for the words of `tokenizer`; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(_clip_config(cfg, tokenizer))
    # Averaging over pixels is what lowers speckle; any other filter keeps some of it.
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": cfg.image_px},
        crop_size={"height": cfg.image_px, "width": cfg.image_px},
        resample=Image.Resampling.BOX.value,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
    )
    clip = Clip(model.eval(), processor, tokenizer)
    check_clip(clip, "the new CLIP")
    return clip


def save_clip(clip: Clip, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write model (safetensors of `dtype`), processor and tokenizer into `folder`."""
    state = {name: tensor.to(dtype) for name, tensor in clip.model.state_dict().items()}
    clip.model.save_pretrained(folder, state_dict=state)
    clip.processor.save_pretrained(folder)
    clip.tokenizer.save_pretrained(folder)


def _clip_config(cfg: ClipModelConfig, tokenizer: CLIPTokenizer) -> CLIPConfig:
    vision = {
        "hidden_size": cfg.vision_width,
        "intermediate_size": 4 * cfg.vision_width,
        "num_hidden_layers": cfg.vision_layers,
        "num_attention_heads": cfg.vision_heads,
        "image_size": cfg.image_px,
        "patch_size": cfg.patch_px,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": cfg.text_width,
        "intermediate_size": 4 * cfg.text_width,
        "num_hidden_layers": cfg.text_layers,
        "num_attention_heads": cfg.text_heads,
        "max_position_embeddings": cfg.max_positions,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=cfg.projection)
