"""Where a training starts from: the base bundle under the noise schedule that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from sarhpc.diffusion.bundle import Bundle, load_bundle, with_schedule
from sarhpc.training.config import TrainConfig


def load_base(cfg: TrainConfig, base: Path) -> Bundle:
    """The bundle `base` as `cfg` trains it: its schedule, and its weights or newly drawn ones.

    Raises:
        ConfigError: zero terminal SNR was asked for with a prediction it makes no sense for.
        DataError: the folder is no bundle.
    """
    bundle = with_schedule(load_bundle(base), cfg.prediction_type, cfg.zero_terminal_snr)
    return _drawn_anew(bundle, cfg.seed) if cfg.random_init else bundle


def _drawn_anew(bundle: Bundle, seed: int) -> Bundle:
    unet, text_encoder = bundle.unet, bundle.text_encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return replace(
            bundle,
            unet=type(unet).from_config(unet.config),
            text_encoder=type(text_encoder)(text_encoder.config),
        )
