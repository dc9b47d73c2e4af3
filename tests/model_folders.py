"""Folders that are laid out like models: configurations of tiny ones, no weights to be loaded."""

from __future__ import annotations

import json
from pathlib import Path

from sarhpc.diffusion.families.family import ModelFamily
from sarhpc.diffusion.families.sd15 import SD15
from sarhpc.diffusion.families.sdxl import SDXL

UNET = {
    "block_out_channels": [8, 16], "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "layers_per_block": 1,
    "cross_attention_dim": 16, "attention_head_dim": 2, "norm_num_groups": 4,
}  # fmt: skip
UNET_XL = UNET | {
    "cross_attention_dim": 40, "transformer_layers_per_block": [1, 2], "addition_time_embed_dim": 8,
    "addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 24 + 6 * 8,
}  # fmt: skip
VAE = {
    "block_out_channels": [4, 4, 8, 8], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 4, "layers_per_block": 1,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "vocab_size": 540, "max_position_embeddings": 16,
}  # fmt: skip
TEXT_2 = TEXT | {"hidden_size": 24, "projection_dim": 24}


def model_layout(folder: Path, family: ModelFamily = SD15, image_px: int = 32) -> Path:
    """A folder with the files of a model of such images, which passes the checks of a start."""
    parts = {
        "unet": (UNET_XL if family is SDXL else UNET) | {"sample_size": image_px // 8},
        "vae": VAE | {"sample_size": image_px}, "text_encoder": TEXT, "text_encoder_2": TEXT_2,
    }  # fmt: skip
    for name in family.folder_files():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(parts.get(path.parent.name, {})))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": family.pipeline}))
    return folder


def captioner_layout(folder: Path) -> Path:
    """A folder with the files of a BLIP, which passes the checks of a start."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    return folder
