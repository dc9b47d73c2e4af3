"""Checkpoints in one file, in the layout Stable Diffusion 1.5 and XL were first published in.

The file holds weights alone. What else a bundle needs, the shapes of the models, tokenizers and the
noise schedule, lies beside it in a diffusers folder of the same name without `.safetensors`, which
may be without weights. The conversion of names is diffusers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    create_diffusers_clip_model_from_ldm,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from hpc.errors import DataError

SUFFIX = ".safetensors"
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_TEXT: dict[bool, tuple[str, ...]] = {
    False: ("cond_stage_model.transformer.text_model.",),
    True: ("conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."),
}
"""Of SD 1.5, and of SDXL."""
_CONVERTERS: dict[Any, Callable[..., dict[str, Tensor]]] = {
    UNet2DConditionModel: convert_ldm_unet_checkpoint,
    AutoencoderKL: convert_ldm_vae_checkpoint,
}
_FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)


@dataclass(frozen=True)
class SingleFile:
    """The models of a file, in evaluation mode."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection | None


def is_single_file(path: Path) -> bool:
    """Whether `path` names a checkpoint in one file, not a folder."""
    return path.suffix == SUFFIX and not path.is_dir()


def shapes_beside(file: Path) -> Path:
    """The folder with shapes, tokenizers and schedule of `file`.

    Raises:
        DataError: it is not there.
    """
    folder = file.with_suffix("")
    if not (folder / "model_index.json").is_file():
        raise DataError(
            f"{file} holds weights alone: put the model_index.json, the config.json of each part, "
            f"tokenizer and scheduler of its kind into {folder} (`sarhpc fetch` brings a folder "
            "that has them; its weights are not needed)"
        )
    return folder


def read_single_file(file: Path, *, is_xl: bool, dtype: torch.dtype) -> SingleFile:
    """The models in `file`, of the shapes beside it and of `dtype`.

    Raises:
        DataError: the file is torn or lacks a part or weights of one, or is of another kind or of
            other shapes than the folder beside it.
    """
    folder = shapes_beside(file)
    weights = _read(file)
    _require_parts(file, weights, is_xl=is_xl)
    return SingleFile(
        unet=_part(file, "unet", UNet2DConditionModel, weights, folder, dtype),
        vae=_part(file, "vae", AutoencoderKL, weights, folder, dtype),
        text_encoder=_part(file, "text_encoder", CLIPTextModel, weights, folder, dtype),
        text_encoder_2=_part(
            file, "text_encoder_2", CLIPTextModelWithProjection, weights, folder, dtype
        )
        if is_xl
        else None,
    )


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"checkpoint {file} cannot be read ({error}); copy it again") from error


def _require_parts(file: Path, weights: Mapping[str, Tensor], *, is_xl: bool) -> None:
    if _has(weights, _TEXT[not is_xl]):
        kinds = ("SDXL", "SD 1.5") if is_xl else ("SD 1.5", "SDXL")
        raise DataError(
            f"{file.with_suffix('')} is of the {kinds[0]} kind, {file} of the {kinds[1]} kind; "
            "put the configuration of its own kind beside it"
        )
    needed = {"U-Net": (_UNET,), "autoencoder": (_VAE,), "text encoder": _TEXT[is_xl]}
    absent = {part: names for part, names in needed.items() if not _has(weights, names)}
    if absent:
        told = ", ".join(f"{part} ({' and '.join(n)}*)" for part, n in absent.items())
        raise DataError(
            f"{file} has no {told}; a whole checkpoint in the original layout is needed, not an "
            "adapter or a part of a diffusers folder"
        )


def _has(weights: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> bool:
    return all(any(name.startswith(prefix) for name in weights) for prefix in prefixes)


def _part(
    file: Path,
    part: str,
    kind: Any,
    weights: Mapping[str, Tensor],
    folder: Path,
    dtype: torch.dtype,
) -> Any:
    try:
        if kind in _CONVERTERS:
            model, apart = _converted(part, kind, weights, folder)
        else:
            model = create_diffusers_clip_model_from_ldm(
                kind, dict(weights), config=str(folder), subfolder=part, local_files_only=True
            )
            apart = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    except _FAILURES as error:
        raise DataError(
            f"the {part} in {file} does not fit {folder / part} ({error}); put the configuration "
            "of its own kind beside it"
        ) from error
    if apart:
        raise DataError(
            f"the {part} in {file} and {folder / part} differ in {len(apart)} weights, first "
            f"{apart[0]}; copy the file again, or put the configuration of its own kind beside it"
        )
    return nn.Module.to(model, dtype=dtype).eval()


def _converted(
    part: str, kind: Any, weights: Mapping[str, Tensor], folder: Path
) -> tuple[Any, list[str]]:
    """The model, and the names that only it or only the file has."""
    config = kind.load_config(folder, subfolder=part, local_files_only=True)
    model = kind.from_config(config)
    state = _CONVERTERS[kind](dict(weights), config=dict(model.config))
    found = model.load_state_dict(state, strict=False)
    return model, [*found.missing_keys, *found.unexpected_keys]
