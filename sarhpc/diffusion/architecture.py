"""Untrained parts of a model bundle, from their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTokenizer

from hpc.errors import ConfigError
from sarhpc.diffusion.config import BundleConfig, SchedulerShape, TextShape, UNetShape
from sarhpc.diffusion.families.family import TextEncoder, text_shapes
from sarhpc.diffusion.families.registry import family_of_shapes


def new_text_encoder(encoder: TextEncoder, shape: TextShape, tokenizer: CLIPTokenizer) -> Any:
    """A text encoder of `shape` for the vocabulary of `tokenizer`, in evaluation mode."""
    config = text_config(shape, len(tokenizer), tokenizer)
    return getattr(transformers, encoder.model)(config).eval()


def text_config(
    shape: TextShape, vocab_size: int, tokenizer: CLIPTokenizer | None = None
) -> CLIPTextConfig:
    """Configuration of a CLIP text encoder of `shape`; its special tokens are the tokenizer's."""
    named = ("bos_token_id", "eos_token_id", "pad_token_id")
    special = {} if tokenizer is None else {name: getattr(tokenizer, name) for name in named}
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        projection_dim=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.positions,
        hidden_act=shape.activation,
        **special,
    )


def new_unet(cfg: BundleConfig) -> UNet2DConditionModel:
    """A U-Net of the shapes in `cfg`, with micro-conditioning if its family has size ids.

    Raises:
        ConfigError: a list of the shape has another number of levels than the channels.
    """
    shape, family = cfg.unet, family_of_shapes(cfg)
    texts = text_shapes(cfg)
    levels = len(shape.block_out_channels)
    _one_per_level("cross_attention", shape.cross_attention, levels)
    depth = _one_per_level("transformer_layers", shape.transformer_layers or [1] * levels, levels)
    heads = shape.level_heads or [shape.attention_heads] * levels
    attends = shape.cross_attention
    down = ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in attends]
    up = ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in attends[::-1]]
    return UNet2DConditionModel(
        sample_size=shape.sample_size,
        in_channels=family.latent_channels,
        out_channels=family.latent_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=tuple(shape.block_out_channels),
        layers_per_block=shape.layers_per_block,
        # diffusers takes the number of heads under this name; a plain number where all levels agree
        # keeps config.json as published.
        attention_head_dim=_plain(_one_per_level("level_heads", heads, levels)),
        transformer_layers_per_block=_plain(depth),
        norm_num_groups=shape.norm_groups,
        cross_attention_dim=sum(text.hidden for text in texts),
        **_micro_conditioning(shape, texts[-1], family.size_ids),
    )


def _micro_conditioning(shape: UNetShape, pooled: TextShape, size_ids: int) -> dict[str, Any]:
    if not size_ids:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": shape.size_embedding,
        "projection_class_embeddings_input_dim": pooled.hidden + size_ids * shape.size_embedding,
        "use_linear_projection": True,
    }


def _one_per_level(name: str, values: Sequence[int], levels: int) -> tuple[int, ...]:
    if len(values) != levels:
        raise ConfigError(
            f"unet.{name} has {len(values)} entries for {levels} levels; give one per level"
        )
    return tuple(values)


def _plain(values: tuple[int, ...]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else values


def new_scheduler(shape: SchedulerShape) -> DDIMScheduler:
    """The noise schedule of `shape`.

    Raises:
        ConfigError: zero terminal SNR without v-prediction.
    """
    require_trainable(shape.prediction_type, shape.zero_terminal_snr)
    with torch.device("cpu"):  # models may be built on the meta device, schedules never
        return DDIMScheduler(
            num_train_timesteps=shape.train_timesteps,
            beta_start=shape.beta_start,
            beta_end=shape.beta_end,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=shape.prediction_type,
            rescale_betas_zero_snr=shape.zero_terminal_snr,
            timestep_spacing="trailing" if shape.zero_terminal_snr else "leading",
        )


def require_trainable(prediction_type: str, zero_terminal_snr: bool) -> None:
    """Raise ConfigError unless the prediction is defined at every timestep.

    Raises:
        ConfigError: zero terminal SNR without v-prediction.
    """
    if zero_terminal_snr and prediction_type != "v_prediction":
        raise ConfigError(
            "zero_terminal_snr needs prediction_type=v_prediction: at zero SNR the noise carries "
            "no information about the image"
        )
