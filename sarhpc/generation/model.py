"""The model that generates: a diffusers folder as a ready pipeline, and its hash."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from hpc.errors import ConfigError, DataError
from sarhpc.generation.config import GenerateConfig

_SCHEDULERS = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "dpmsolver": (DPMSolverMultistepScheduler, {}),
    # Without Runge-Kutta warm-up, as Stable Diffusion uses it.
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
}


def load_pipeline(
    model: Path, cfg: GenerateConfig, device: str | None = None
) -> StableDiffusionPipeline:
    """The diffusers folder `model` with the scheduler and dtype of `cfg`, ready to sample.

    Nothing is fetched and no pickle is read: safetensors only.

    Args:
        model: Folder as `save_pretrained` writes it.
        cfg: Which scheduler and dtype.
        device: torch device; None takes the first GPU, or the CPU where there is none.

    Raises:
        DataError: the folder is no diffusers model, is incomplete, or has no safetensors.
    """
    if not (model / "model_index.json").is_file():
        raise DataError(f"{model} is no diffusers folder (no model_index.json): export one first.")
    diffusers.utils.logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            str(model),
            dtype=getattr(torch, cfg.dtype),
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"cannot load the model in {model}: {error}. Export it again; weights must be "
            "safetensors."
        ) from error
    scheduler, options = _SCHEDULERS[cfg.scheduler]
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **options)
    # A tokenizer that knows no length pads to thousands of tokens, which the encoder then refuses.
    longest = pipeline.text_encoder.config.max_position_embeddings
    pipeline.tokenizer.model_max_length = min(pipeline.tokenizer.model_max_length, longest)
    pipeline.set_progress_bar_config(disable=True)
    # One image at a time: decoding is where memory peaks, and a batch gains nothing there.
    pipeline.vae.enable_slicing()
    return pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def require_match(pipeline: StableDiffusionPipeline, cfg: GenerateConfig) -> None:
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
