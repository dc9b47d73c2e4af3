"""Ranges of numbers that the parts of the program check themselves, for the reference of settings.

`tests/unit/house/test_reference.py` holds each against the program: what is inside is accepted,
what is outside refused by a message that names the setting.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckedRange:
    """One range, in words and by values that tell it."""

    text: str
    inside: float
    outside: tuple[float, ...]
    keys: str


CHECKED = (
    CheckedRange("at least 1", 1, (0,), """
        tile.tile_px tile.stride_px tile.shard_samples tile.block_tiles tile.coarse_factor
        caption_train.steps caption_train.batch caption_train.skip_in_a_row
        caption_train.skip_in_all caption_train.max_tokens caption_train.threads
        caption_train.checkpoint_every_steps caption_train.val_every caption_train.val_images
        caption_train.judge.images caption_train.eval_beams caption_train.log_every
        clip_train.steps clip_train.threads clip_train.skip_in_a_row clip_train.skip_in_all
        clip_train.micro_batch clip_train.checkpoint_every_steps clip_train.val_every
        clip_train.log_every
        prior.images prior.images_per_prompt prior.steps prior.batch prior.threads
        prior.shard_samples
        train.epochs train.global_batch train.micro_batch train.skip_in_a_row train.skip_in_all
        train.checkpoint_every_steps train.keep_every_steps train.validation_steps train.threads
        train.loader_threads train.log_every_steps
        generate.images generate.images_per_prompt generate.steps generate.batch generate.threads
        generate.shard_samples compare.images
        evaluate.text.batch evaluate.text.threads
        """),
    CheckedRange("at least 0", 0, (-1,), """
        caption_train.micro_batch caption_train.lr caption_train.warmup_steps
        caption_train.weight_decay caption_train.grad_clip caption_train.checkpoint_every_s
        caption_train.eval_images
        clip_train.lr clip_train.warmup_steps clip_train.weight_decay clip_train.grad_clip
        clip_train.checkpoint_every_s
        train.noise_offset train.lr_unet train.lr_text_encoder train.lr_text_encoder_2
        train.warmup_steps train.weight_decay train.grad_clip train.checkpoint_every_s
        train.validation_every_steps evaluate.gallery evaluate.autoencoder_s
        """),
    CheckedRange("at least 2", 2, (1,), """
        clip_train.batch clip_train.val_tiles clip_train.judge.among clip_train.keep_last
        caption_train.keep_last train.keep_last evaluate.bootstrap evaluate.text.among
        """),
    CheckedRange("at least 4", 4, (3,), "evaluate.tiles"),
    CheckedRange("more than 0", 0.01, (0,), "tile.pixel_m tile.log1p_gain tile.split.cell_m"),
    CheckedRange("more than 0 and at most 1", 1, (0, 1.5), "tile.transition"),
    CheckedRange("from 0 to 1", 1, (-1, 1.5), """
        train.caption_dropout prior.guidance_rescale generate.guidance_rescale
        """),
    CheckedRange("from 0 to less than 1", 0, (-1, 1), """
        caption_train.label_smoothing caption_train.ema_decay clip_train.ema_decay
        train.ema_decay
        """),
    CheckedRange("0, 1, 2 or 3", 1, (-1, 4), """
        caption_train.zero_stage clip_train.zero_stage train.zero_stage
        """),
    CheckedRange("0, or at least 2", 0, (-1, 1), "evaluate.orientation_steps"),
    CheckedRange("a multiple of 8", 64, (-8, 12), "generate.height_px generate.width_px"),
    CheckedRange("from 1 to 100000", 100_000, (0, 100_001), "imported.shard_samples"),
    CheckedRange("at least 1", 1, (0,), "simulate.scenes"),
    CheckedRange("from 32 to 32768", 32, (31, 32_769), "simulate.size_px"),
    CheckedRange("from 0.05 to 20", 20, (0, 21), "simulate.pixel_m"),
    CheckedRange("from 1 to 1000", 1, (0, 1001), "simulate.scenes_per_line"),
    CheckedRange("from 20 to 70", 20, (19, 71), "simulate.incidence_deg"),
    CheckedRange("from 0 to 10", 0, (-1, 11), "simulate.incidence_spread_deg"),
    CheckedRange("from 500 to 1e6", 500, (499, 1e7), "simulate.altitude_m"),
    CheckedRange("from 1 to 64", 64, (0, 65), "simulate.looks"),
    CheckedRange("from 0.1 to 1", 1, (0, 1.5), "simulate.band_fraction"),
    CheckedRange("from 15 to 60", 15, (14, 61), "simulate.sidelobe_db"),
    CheckedRange("from 0 to 8", 8, (-1, 9), "simulate.relief_m"),
    CheckedRange("from 0 to 1", 1, (-1, 1.5), "simulate.reflown_fraction"),
    CheckedRange("1 or 2", 2, (0, 3), "simulate.radiometry"),
)  # fmt: skip

TEXTS = {key: item.text for item in CHECKED for key in item.keys.split()}
"""Key -> its range in words."""
