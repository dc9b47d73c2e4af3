"""The model that generates: a diffusers folder, SD 1.5 or SDXL, as a ready pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)

from hpc.errors import ConfigError, DataError
from sarhpc.generation.adapter import apply_adapter
from sarhpc.generation.config import GenerateConfig

Pipeline: TypeAlias = (
    StableDiffusionPipeline
    | StableDiffusionXLPipeline
    | StableDiffusionControlNetPipeline
    | StableDiffusionXLControlNetPipeline
)

# No image is checked or marked: neither would know a SAR image.
_UNCHECKED = {"safety_checker": None, "requires_safety_checker": False}
_UNMARKED = {"add_watermarker": False}
_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "StableDiffusionPipeline": (StableDiffusionPipeline, _UNCHECKED),
    "StableDiffusionXLPipeline": (StableDiffusionXLPipeline, _UNMARKED),
    "StableDiffusionControlNetPipeline": (StableDiffusionControlNetPipeline, _UNCHECKED),
    "StableDiffusionXLControlNetPipeline": (StableDiffusionXLControlNetPipeline, _UNMARKED),
}

_SCHEDULERS = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "dpmsolver": (DPMSolverMultistepScheduler, {}),
    # Without Runge-Kutta warm-up, as Stable Diffusion uses it.
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
}


def load_pipeline(model: Path, cfg: GenerateConfig, device: str | None = None) -> Pipeline:
    """The diffusers folder `model` with the scheduler, dtype and adapter of `cfg`, ready to sample.

    Nothing is fetched and no pickle is read: safetensors only.

    Args:
        model: Folder as `save_pretrained` writes it.
        cfg: Which scheduler, dtype and adapter.
        device: torch device; None takes the first GPU, or the CPU where there is none.

    Raises:
        DataError: the folder is no diffusers model of a kind known here, is incomplete, or has no
            safetensors; or the adapter is missing or of another model.
        ConfigError: an adapter's weight is given and there is no adapter, or layers that steer and
            there is no ControlNet, or the other way round.
    """
    kind, settings = _kind(model)
    _require_steering(model, kind, cfg)
    diffusers.utils.logging.disable_progress_bar()
    try:
        pipeline = kind.from_pretrained(
            str(model),
            dtype=getattr(torch, cfg.dtype),
            use_safetensors=True,
            local_files_only=True,
            **settings,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"cannot load the model in {model}: {error}. Export it again; weights must be "
            "safetensors."
        ) from error
    apply_adapter(pipeline, model, cfg)
    scheduler, options = _SCHEDULERS[cfg.scheduler]
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **options)
    # A tokenizer that knows no length pads to thousands of tokens, which the encoder then refuses.
    for suffix in ("", "_2") if hasattr(pipeline, "text_encoder_2") else ("",):
        longest = getattr(pipeline, f"text_encoder{suffix}").config.max_position_embeddings
        tokenizer = getattr(pipeline, f"tokenizer{suffix}")
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    pipeline.set_progress_bar_config(disable=True)
    # One image at a time: decoding is where memory peaks, and a batch gains nothing there.
    pipeline.vae.enable_slicing()
    return pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _kind(model: Path) -> tuple[Any, dict[str, Any]]:
    """Class and settings of the pipeline that `model_index.json` names."""
    index = model / "model_index.json"
    if not index.is_file():
        raise DataError(f"{model} is no diffusers folder (no {index.name}): export one first.")
    try:
        name = json.loads(index.read_text()).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{index} cannot be read ({error}): export the model again.") from error
    if name not in _KINDS:
        raise DataError(f"{model} holds a {name}: only {' and '.join(_KINDS)} generate here.")
    return _KINDS[name]


def _require_steering(model: Path, kind: Any, cfg: GenerateConfig) -> None:
    steered = kind.__name__.endswith("ControlNetPipeline")
    if steered and cfg.steer is None:
        raise ConfigError(
            f"{model} has a ControlNet: say in generate.steer what steers it (layer, shards)."
        )
    if not steered and cfg.steer is not None:
        raise ConfigError(f"{model} has no ControlNet: leave generate.steer out.")


def require_match(pipeline: Pipeline, cfg: GenerateConfig) -> None:
    """Return if `pipeline` has the scheduler and dtype that `cfg` will have recorded.

    Raises:
        ConfigError: it was loaded for another configuration.
    """
    scheduler, _ = _SCHEDULERS[cfg.scheduler]
    if type(pipeline.scheduler) is not scheduler or pipeline.unet.dtype != getattr(
        torch, cfg.dtype
    ):
        raise ConfigError(
            f"the pipeline samples with {type(pipeline.scheduler).__name__} in "
            f"{pipeline.unet.dtype}, the configuration says {cfg.scheduler} in {cfg.dtype}: load "
            "it with the configuration it is used with."
        )
