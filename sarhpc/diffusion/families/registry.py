"""The families that are supported, and how a model is recognised as one of them."""

from __future__ import annotations

from pathlib import Path

from hpc.documents import read_json
from sarhpc.diffusion.config import BundleConfig
from sarhpc.diffusion.families.family import ModelFamily, text_shapes
from sarhpc.diffusion.families.sd15 import SD15
from sarhpc.diffusion.families.sdxl import SDXL

FAMILIES = (SD15, SDXL)
"""From general to specific: the last whose `name_part` matches a name is the one meant."""


def is_text_encoder(part: str) -> bool:
    """Whether folder `part` of a diffusers folder holds a text encoder."""
    return any(part == encoder.folder for family in FAMILIES for encoder in family.encoders)


def family_of_pipeline(class_name: str) -> ModelFamily | None:
    """Family of a pipeline class of diffusers, of any of its kinds; None if unsupported."""
    for family in FAMILIES:
        if class_name in family.pipelines:
            return family
    return None


def family_of_shapes(shapes: BundleConfig) -> ModelFamily:
    """Family of a bundle of these shapes: the one with as many text encoders."""
    count = len(text_shapes(shapes))
    return next(family for family in FAMILIES if len(family.encoders) == count)


def family_of(base: Path) -> ModelFamily:
    """Family of diffusers folder `base`, from its index or else from the folders inside.

    A missing folder is recognised by its name: `xl` in it means SDXL, otherwise SD 1.5.
    """
    if not base.is_dir():
        name = base.name.lower()
        return next(family for family in reversed(FAMILIES) if family.name_part in name)
    found = family_of_pipeline(_class_name(base / "model_index.json"))
    return found or _by_folders(base)


def _class_name(index: Path) -> str:
    try:
        return str(read_json(index)["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _by_folders(base: Path) -> ModelFamily:
    """The family with the most text encoders that are all in `base`."""
    by_encoders = sorted(FAMILIES, key=lambda family: -len(family.encoders))
    complete = (f for f in by_encoders if all((base / e.folder).is_dir() for e in f.encoders))
    return next(complete, by_encoders[-1])
