"""The models of a bundle on the meta device, for counting: no weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig

from hpc.errors import DataError
from sarhpc.diffusion.architecture import new_unet, text_config
from sarhpc.diffusion.autoencoder import new_autoencoder
from sarhpc.diffusion.families.family import AUTOENCODER, ModelFamily, text_shapes
from sarhpc.diffusion.families.registry import family_of
from sarhpc.diffusion.single_file import is_single_file, shapes_beside


@dataclass(frozen=True)
class Skeleton:
    """Models on the meta device, which have shapes and no values."""

    family: ModelFamily
    models: dict[str, Any]
    """Backbone and text encoders, by their folders in a bundle."""
    vae: AutoencoderKL
    origin: str
    """Where the shapes are from."""


def skeleton_of(base: Path) -> Skeleton:
    """The models of diffusers folder `base`; if it is missing, those published for its family.

    A single-file checkpoint has the shapes in the folder beside it.

    Raises:
        DataError: the folder exists and is not a bundle.
    """
    if is_single_file(base) and base.exists():
        return _from_folder(shapes_beside(base))
    if base.is_dir():
        return _from_folder(base)
    return _published(family_of(base))


def _published(family: ModelFamily) -> Skeleton:
    shapes = family.published
    with torch.device("meta"):
        models: dict[str, Any] = {family.backbone: new_unet(shapes)}
        for encoder, shape in zip(family.encoders, text_shapes(shapes), strict=True):
            config = text_config(shape, shapes.vocab_size)
            models[encoder.folder] = getattr(transformers, encoder.model)(config)
        vae = new_autoencoder(shapes.vae, 0)
    return Skeleton(family, models, vae, f"the published shapes of {family.title}")


def _from_folder(base: Path) -> Skeleton:
    family = family_of(base)
    network = getattr(diffusers, family.backbone_class)
    try:
        with torch.device("meta"):
            backbone = _built(network, base / family.backbone)
            models: dict[str, Any] = {family.backbone: backbone}
            for encoder in family.encoders:
                folder = base / encoder.folder
                config = CLIPTextConfig.from_pretrained(folder, local_files_only=True)
                models[encoder.folder] = getattr(transformers, encoder.model)(config)
            vae = _built(AutoencoderKL, base / AUTOENCODER)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{base} is no diffusers folder whose shapes can be read: {error}"
        ) from error
    return Skeleton(family, models, vae, str(base))


def _built(kind: Any, folder: Path) -> Any:
    return kind.from_config(kind.load_config(folder, local_files_only=True))
