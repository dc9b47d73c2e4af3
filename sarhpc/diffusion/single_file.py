"""Single-file checkpoints, in the original layout of Stable Diffusion.

The file holds weights only. The rest of a bundle, the shapes of the models, tokenizers and the
noise schedule, is in a diffusers folder of the same name without `.safetensors` beside it, which
needs no weights. diffusers converts the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    create_diffusers_clip_model_from_ldm,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hpc.errors import DataError
from sarhpc.diffusion.families.family import AUTOENCODER, ModelFamily
from sarhpc.diffusion.families.registry import FAMILIES

SUFFIX = ".safetensors"
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CONVERTERS: dict[Any, Callable[..., dict[str, Tensor]]] = {
    UNet2DConditionModel: convert_ldm_unet_checkpoint,
    AutoencoderKL: convert_ldm_vae_checkpoint,
}
_FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)


@dataclass(frozen=True)
class SingleFile:
    """The models of a file, in evaluation mode."""

    backbone: UNet2DConditionModel
    vae: AutoencoderKL
    encoders: tuple[Any, ...]


def is_single_file(path: Path) -> bool:
    """Whether `path` names a single-file checkpoint, not a folder."""
    return path.suffix == SUFFIX and not path.is_dir()


def shapes_beside(file: Path) -> Path:
    """The folder with shapes, tokenizers and schedule of `file`.

    Raises:
        DataError: it does not exist.
    """
    folder = file.with_suffix("")
    if not (folder / "model_index.json").is_file():
        raise DataError(
            f"{file} contains only weights: put the model_index.json, the config.json of each "
            f"part, tokenizer and scheduler of its kind into {folder} (`sarhpc fetch` downloads a "
            "folder that has them; its weights are not needed)"
        )
    return folder


def read_single_file(file: Path, family: ModelFamily, dtype: torch.dtype) -> SingleFile:
    """The models in `file`, of the shapes beside it and of `dtype`.

    Raises:
        DataError: the file is damaged or lacks a part or weights of one, or is of another family or
            of other shapes than the folder beside it.
    """
    folder = shapes_beside(file)
    weights = _read(file)
    _require_parts(file, weights, family)
    return SingleFile(
        backbone=_part(file, family.backbone, UNet2DConditionModel, weights, folder, dtype),
        vae=_part(file, AUTOENCODER, AutoencoderKL, weights, folder, dtype),
        encoders=tuple(
            _part(
                file, encoder.folder, getattr(transformers, encoder.model), weights, folder, dtype
            )
            for encoder in family.encoders
        ),
    )


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"checkpoint {file} cannot be read ({error}); copy it again") from error


def _require_parts(file: Path, weights: Mapping[str, Tensor], family: ModelFamily) -> None:
    prefixes = family.original_prefixes
    for other in FAMILIES:
        if other.original_prefixes != prefixes and _has(weights, other.original_prefixes):
            raise DataError(
                f"{file.with_suffix('')} is of the {family.name} kind, {file} of the {other.name} "
                "kind; put the configuration of its own kind beside it"
            )
    needed = {"U-Net": (_UNET,), "autoencoder": (_VAE,), "text encoder": prefixes}
    absent = {part: names for part, names in needed.items() if not _has(weights, names)}
    if absent:
        missing = ", ".join(f"{part} ({' and '.join(n)}*)" for part, n in absent.items())
        raise DataError(
            f"{file} has no {missing}; a whole checkpoint in the original layout is needed, not an "
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
            model, unmatched = _converted(part, kind, weights, folder)
        else:
            model = create_diffusers_clip_model_from_ldm(
                kind, dict(weights), config=str(folder), subfolder=part, local_files_only=True
            )
            unmatched = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    except _FAILURES as error:
        raise DataError(
            f"the {part} in {file} does not fit {folder / part} ({error}); put the configuration "
            "of its own kind beside it"
        ) from error
    if unmatched:
        raise DataError(
            f"the {part} in {file} and {folder / part} differ in {len(unmatched)} weights, first "
            f"{unmatched[0]}; copy the file again, or put the configuration of its own kind "
            "beside it"
        )
    return nn.Module.to(model, dtype=dtype).eval()


def _converted(
    part: str, kind: Any, weights: Mapping[str, Tensor], folder: Path
) -> tuple[Any, list[str]]:
    """The model, and the names of weights that only it or only the file has."""
    config = kind.load_config(folder, subfolder=part, local_files_only=True)
    model = kind.from_config(config)
    state = _CONVERTERS[kind](dict(weights), config=dict(model.config))
    found = model.load_state_dict(state, strict=False)
    return model, [*found.missing_keys, *found.unexpected_keys]
