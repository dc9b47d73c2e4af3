"""Where a training starts from: the base bundle under its noise schedule, and what of it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hpc.errors import ConfigError
from sarhpc.diffusion.adapter import TEXT, add_adapter, unet_targets
from sarhpc.diffusion.bundle import Bundle, load_bundle, with_schedule
from sarhpc.diffusion.control import new_controlnet
from sarhpc.diffusion.families.family import ModelFamily
from sarhpc.diffusion.learned_token import add_token
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.model import base_rates


def load_base(cfg: TrainConfig, base: Path) -> Bundle:
    """The bundle `base` as `cfg` trains it: its schedule, and its weights or newly drawn ones.

    With the adapter, the token or the ControlNet of `cfg`, if any; exactly the parameters that
    learn require a gradient.

    Raises:
        ConfigError: zero terminal SNR was asked for with a prediction it makes no sense for, or
            an adapter or a token that does not fit the models, or a rate for an encoder there is
            none of, or no rate at all.
        DataError: the folder is no bundle.
    """
    bundle = with_schedule(load_bundle(base), cfg.prediction_type, cfg.zero_terminal_snr)
    if cfg.lr_text_encoder_2 is not None and len(bundle.encoders) == 1:
        raise ConfigError(
            f"train.lr_text_encoder_2={cfg.lr_text_encoder_2} but {base} has one text encoder; "
            "take it out, or start from an SDXL model"
        )
    if cfg.random_init:
        bundle = _reinitialised(bundle, cfg.seed)
    if cfg.control is not None:
        bundle = replace(bundle, controlnet=new_controlnet(bundle.backbone, cfg.seed))
    mark_trainable(cfg, bundle.family, bundle.models)
    if cfg.token is not None:
        bundle = add_token(bundle, cfg.token)
    if not any(p.requires_grad for model in bundle.models.values() for p in model.parameters()):
        raise ConfigError(
            "every learning rate is 0: nothing would learn; raise one, or add a token"
        )
    return bundle


def mark_trainable(cfg: TrainConfig, family: ModelFamily, models: Mapping[str, Any]) -> None:
    """Let exactly the parameters of `models` that `cfg` trains require a gradient.

    With the adapter of `cfg`, if any.

    Raises:
        ConfigError: the adapter does not fit the models.
    """
    rates, adapter = base_rates(cfg, family), cfg.adapter
    for part, model in models.items():
        model.requires_grad_(rates[part] > 0)
        if adapter is None or rates[part] == 0:
            continue
        if part == family.backbone and adapter.unet:
            add_adapter(model, adapter, unet_targets(adapter), cfg.seed)
        if part != family.backbone and adapter.text_encoder:
            add_adapter(model, adapter, list(TEXT), cfg.seed)
    encoders = [models[encoder.folder] for encoder in family.encoders]
    for module in family.unused_modules(encoders):  # weight decay would move what gets no gradient
        module.requires_grad_(False)


def _reinitialised(bundle: Bundle, seed: int) -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = type(bundle.backbone).from_config(bundle.backbone.config)
        encoders = tuple(type(encoder)(encoder.config) for encoder in bundle.encoders)
    return replace(bundle, backbone=backbone, encoders=encoders)
