"""The ControlNets of a pipeline: its own and those of other folders, of one U-Net all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ControlNetModel
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

from hpc.errors import ConfigError, DataError
from sarhpc.diffusion.control_facts import (
    CONTROLNET,
    backbone_digest,
    control_folder,
    read_control_facts,
)
from sarhpc.diffusion.families.family import ModelFamily
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.controls.config import ControlInputConfig
from sarhpc.generation.controls.several import controls_of

_SHAPE = ("in_channels", "block_out_channels", "cross_attention_dim", "addition_embed_type")
"""Entries of a ControlNet's configuration that are those of its U-Net."""


def require_controls(model: Path, cfg: GenerateConfig, *, has_controlnet: bool) -> None:
    """Raise unless `model` is steered exactly where `cfg` says so, by ControlNets of its U-Net.

    Only configurations and a part of the weights are read.

    Raises:
        ConfigError: a model and settings that disagree, a ControlNet of another layer or U-Net.
        DataError: a named folder has no ControlNet.
    """
    if cfg.steer is None:
        if has_controlnet:
            raise ConfigError(
                f"{model} has a ControlNet: set generate.steer to the layer and the shards it "
                "reads."
            )
        return
    if not has_controlnet and cfg.steer.model is None:
        raise ConfigError(
            f"{model} has no ControlNet: leave generate.steer out, or set generate.steer.model to "
            "an exported model that has one."
        )
    for control in controls_of(cfg.steer):
        require_fit(model, control)


def require_fit(model: Path, control: ControlInputConfig) -> None:
    """Raise unless the ControlNet of `control` reads its layer and is of the U-Net of `model`.

    A ControlNet that says neither, as published ones do, is held by its shapes alone.

    Raises:
        ConfigError: it is of another layer or U-Net.
        DataError: there is none.
    """
    folder = control_folder(control.model) if control.model is not None else model / CONTROLNET
    facts = read_control_facts(folder)
    if facts.layer is not None and facts.layer != control.layer:
        raise ConfigError(
            f"the ControlNet in {folder} was trained on the layer `{facts.layer}` and is to read "
            f"`{control.layer}`: set layer: {facts.layer} there, or name another model"
        )
    if facts.backbone is not None and facts.backbone != backbone_digest(model / "unet"):
        raise ConfigError(
            f"the ControlNet in {folder} was trained on another U-Net than that of {model}: train "
            "it with train.base_model set to the model that it is to steer"
        )


def with_controls(pipeline: Any, family: ModelFamily, cfg: GenerateConfig) -> Any:
    """The pipeline with all ControlNets of `cfg`; as it is where its own is the only one.

    Raises:
        ConfigError: one is of another shape.
        DataError: one cannot be loaded.
    """
    steer = cfg.steer
    if steer is None or (steer.model is None and not steer.further):
        return pipeline
    networks = [
        pipeline.controlnet if control.model is None else _loaded(control.model, cfg)
        for control in controls_of(steer)
    ]
    _require_shapes(pipeline.unet, networks, [control.model for control in controls_of(steer)])
    one = networks[0] if len(networks) == 1 else MultiControlNetModel(networks)
    if hasattr(pipeline, CONTROLNET):
        pipeline.register_modules(controlnet=one)
        return pipeline
    parts = {**pipeline.components, **family.building_options}
    name = family.pipeline_class(control=True, begins_with_image=cfg.image_to_image is not None)
    return getattr(diffusers, name)(**parts, controlnet=one)


def _loaded(model: str, cfg: GenerateConfig) -> Any:
    folder = control_folder(model)
    try:
        return ControlNetModel.from_pretrained(
            str(folder),
            torch_dtype=getattr(torch, cfg.dtype),
            use_safetensors=True,
            local_files_only=True,
        ).eval()
    except Exception as error:  # damaged files end the libraries in any exception
        raise DataError(
            f"cannot load the ControlNet in {folder}: {error}. Export it again; weights must be "
            "safetensors."
        ) from error


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _require_shapes(unet: Any, networks: Sequence[Any], models: Sequence[str | None]) -> None:
    for network, model in zip(networks, models, strict=True):
        for name in _SHAPE:
            own, other = unet.config.get(name), network.config.get(name)
            if _plain(own) != _plain(other):
                raise ConfigError(
                    f"the ControlNet of {model} is of another kind of model: its {name} is "
                    f"{other}, that of the U-Net {own}; name one that was trained on this model"
                )
