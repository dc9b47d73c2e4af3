"""The generating model: a diffusers folder as a ready pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from hpc.documents import read_json
from hpc.errors import ConfigError, DataError
from sarhpc.diffusion.families.family import ModelFamily
from sarhpc.diffusion.families.registry import FAMILIES, family_of_pipeline
from sarhpc.diffusion.unblocked_sampling import begin_at_first, step_on_cpu, unblock
from sarhpc.generation.adapters.applying import apply_adapters
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.controls.networks import require_controls, with_controls
from sarhpc.generation.schedules import schedule_options

Pipeline: TypeAlias = Any
"""A pipeline of diffusers, of one of the supported families."""

_SCHEDULERS = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "dpmsolver": (DPMSolverMultistepScheduler, {}),
    # Without Runge-Kutta warm-up, as Stable Diffusion uses it.
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "unipc": (UniPCMultistepScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
}


def load_pipeline(model: Path, cfg: GenerateConfig, device: str | None = None) -> Pipeline:
    """The diffusers folder `model` as `cfg` is to sample it: scheduler, dtype, adapters.

    Nothing is downloaded and no pickle is read: safetensors only.

    Args:
        model: Folder as `save_pretrained` writes it.
        cfg: Which scheduler, schedule, dtype and adapters.
        device: torch device; None takes the first GPU, or the CPU where there is none.

    Raises:
        DataError: the folder is not a diffusers model of a supported family, is incomplete, or has
            no safetensors; or an adapter is missing or of another model.
        ConfigError: an adapter weight without an adapter, `steer` without a ControlNet, a
            ControlNet without `steer`, or one of another layer or U-Net.
    """
    name, family = _pipeline_class(model)
    has_controlnet = name in family.control_pipelines
    require_controls(model, cfg, has_controlnet=has_controlnet)
    name = family.pipeline_class(
        control=has_controlnet, begins_with_image=cfg.image_to_image is not None
    )
    diffusers.utils.logging.disable_progress_bar()
    try:
        pipeline = getattr(diffusers, name).from_pretrained(
            str(model),
            dtype=getattr(torch, cfg.dtype),
            use_safetensors=True,
            local_files_only=True,
            **family.loading_options,
        )
    except Exception as error:  # damaged files end the libraries in any exception
        raise DataError(
            f"cannot load the model in {model}: {error}. Export it again; weights must be "
            "safetensors."
        ) from error
    pipeline = with_controls(pipeline, family, cfg)
    apply_adapters(pipeline, model, cfg)
    pipeline.scheduler = step_on_cpu(new_sampler(pipeline.scheduler.config, cfg))
    # A tokenizer without a maximum length pads to thousands of tokens, too many for the encoder.
    for encoder in family.encoders:
        longest = getattr(pipeline, encoder.folder).config.max_position_embeddings
        tokenizer = getattr(pipeline, encoder.tokenizer)
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    pipeline.set_progress_bar_config(disable=True)
    # One image at a time: decoding is where memory peaks, and a batch gains nothing there.
    pipeline.vae.enable_slicing()
    return unblock(pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu")))


def require_steering(model: Path, cfg: GenerateConfig) -> None:
    """Raise unless `model` can be steered as `cfg` says; see `require_controls`."""
    name, family = _pipeline_class(model)
    require_controls(model, cfg, has_controlnet=name in family.control_pipelines)


def new_sampler(own: Any, cfg: GenerateConfig) -> Any:
    """The scheduler of diffusers that samples as `cfg` says, by betas of the model's `own` one."""
    kind, options = _SCHEDULERS[cfg.scheduler]
    scheduler = kind.from_config(own, **options, **schedule_options(cfg))
    return scheduler if cfg.schedule is None else begin_at_first(scheduler)


def backbone_of(pipeline: Pipeline) -> Any:
    """The network of `pipeline` that predicts the noise."""
    return getattr(pipeline, _family_of(pipeline).backbone)


def first_text_encoder(pipeline: Pipeline) -> tuple[Any, Any]:
    """The first tokenizer of `pipeline` and its text encoder."""
    encoder = _family_of(pipeline).encoders[0]
    return getattr(pipeline, encoder.tokenizer), getattr(pipeline, encoder.folder)


def _family_of(pipeline: Pipeline) -> ModelFamily:
    family = family_of_pipeline(type(pipeline).__name__)
    assert family is not None, "load_pipeline loads no other"
    return family


def _pipeline_class(model: Path) -> tuple[str, ModelFamily]:
    """Name of the pipeline class in `model_index.json`, and its family."""
    index = model / "model_index.json"
    if not index.is_file():
        raise DataError(f"{model} is no diffusers folder (no {index.name}): export one first.")
    try:
        name = read_json(index).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{index} cannot be read ({error}): export the model again.") from error
    family = family_of_pipeline(str(name))
    if family is None:
        known = [*(f.pipeline for f in FAMILIES), *(f.control_pipeline for f in FAMILIES)]
        raise DataError(f"{model} holds a {name}: supported are {', '.join(known)}.")
    return str(name), family


def require_match(pipeline: Pipeline, cfg: GenerateConfig) -> None:
    """Raise ConfigError unless `pipeline` has the scheduler and dtype that `cfg` records.

    Raises:
        ConfigError: it was loaded for another configuration.
    """
    kind, _ = _SCHEDULERS[cfg.scheduler]
    scheduler, dtype = pipeline.scheduler, backbone_of(pipeline).dtype
    wanted = schedule_options(cfg)
    scheduled = {name: scheduler.config.get(name) for name in wanted} == wanted
    if type(scheduler) is not kind or not scheduled or dtype != getattr(torch, cfg.dtype):
        raise ConfigError(
            f"the pipeline samples with {type(scheduler).__name__} in {dtype}, the configuration "
            f"specifies {cfg.scheduler} in {cfg.dtype} with schedule {cfg.schedule or 'null'}: "
            "load it with the configuration it is used with."
        )
