"""What is known of a ControlNet beside its weights: the layer that it reads, and its U-Net."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hpc.documents import read_json
from hpc.errors import DataError
from hpc.publish import publish_json
from sarhpc.diffusion.config import VARIANTS

CONTROLNET = "controlnet"
"""Its folder in a diffusers pipeline."""

CONTROL_FILE = "control.json"
"""Beside its weights: which layer it reads, and of which U-Net it is."""
CONTROL_SCHEMA = "sarhpc.control/1"


def control_folder(model: str) -> Path:
    """The folder of the ControlNet that setting `model` names.

    Raises:
        DataError: there is none.
    """
    for folder in (Path(model) / CONTROLNET, Path(model)):
        if (folder / "config.json").is_file():
            return folder
    raise DataError(
        f"no ControlNet in {model}: give an exported model with a folder {CONTROLNET}/, or that "
        "folder; a run with train.control makes one"
    )


@dataclass(frozen=True)
class ControlFacts:
    """What is known of a ControlNet beside its weights; None is unknown, as of published ones."""

    layer: str | None = None
    """The conditioning layer that it learned to read."""
    backbone: str | None = None
    """`backbone_digest` of the U-Net that it was trained on."""


def publish_control_facts(model: Path, layer: str) -> None:
    """Write beside the ControlNet of diffusers folder `model` what it reads, and on which U-Net."""
    facts = {"schema": CONTROL_SCHEMA, "layer": layer, "unet": backbone_digest(model / "unet")}
    publish_json(model / CONTROLNET / CONTROL_FILE, facts)


def read_control_facts(folder: Path) -> ControlFacts:
    """What the folder of a ControlNet says of it.

    Raises:
        DataError: its record cannot be read.
    """
    file = folder / CONTROL_FILE
    if not file.is_file():
        return ControlFacts()
    try:
        found = read_json(file)
        return ControlFacts(found["layer"], found["unet"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}): export the model again") from error


def backbone_digest(folder: Path) -> str | None:
    """Digest of the first row of each weight of a network, as half floats; None without weights.

    A fine-tune changes it, another precision of the same weights does not; little is read.
    """
    import torch
    from safetensors import safe_open

    digest = hashlib.sha256()
    files = [f for f in sorted(folder.glob("*.safetensors")) if not _is_variant(f.name)]
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for name in sorted(weights.keys()):
                row = weights.get_slice(name)[:1].to(torch.float16).contiguous()
                digest.update(name.encode() + row.numpy().tobytes())
    return digest.hexdigest() if files else None


def _is_variant(name: str) -> bool:
    return any(f".{variant}" in name for variant in VARIANTS)
