"""Whether the folder of a model holds one, by the names of its files alone.

Neither weights nor libraries are loaded: a start and a dry run ask this in milliseconds, and the
stage itself reports what only shows when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from hpc.documents import read_json
from hpc.errors import ConfigError
from sarhpc.diffusion.families.family import AUTOENCODER, SCHEDULER
from sarhpc.diffusion.families.registry import FAMILIES, family_of_pipeline
from sarhpc.stages.inputs.paths import model_folder

INDEX = "model_index.json"
_SINGLE_FILE = ".safetensors"
_WEIGHTS = ("*.safetensors",)
_TOKENIZER = ("tokenizer.json", "vocab.json", "vocab.txt")
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")


def require_diffusers_model(key: str, name: str, *, or_file: bool = False) -> None:
    """Raise ConfigError if `name`, the value of `key`, is a folder that holds no diffusers model.

    What is not there at all passes: that is asked of all models elsewhere.

    Args:
        key: the setting.
        name: the model, as configured.
        or_file: whether a single-file checkpoint with the folder of its shapes beside it will do.

    Raises:
        ConfigError: names what the folder lacks.
    """
    path = _existing(name)
    if path is None:
        return
    if path.is_file():
        if not or_file or path.suffix != _SINGLE_FILE:
            raise ConfigError(f"{key}={name} is a file; give a diffusers folder")
        lacking = list(_lacks_of_model(path.with_suffix(""), weights=False))
        found = f"the folder of its shapes, {path.with_suffix('')}, has"
    else:
        lacking, found = list(_lacks_of_model(path, weights=True)), "it has"
    if lacking:
        raise ConfigError(
            f"{key}={name} holds no model that can be used: {found} no {', '.join(lacking)}; give "
            "a diffusers folder of SD 1.5 or SDXL, as `sarhpc fetch sd15` brings and a run exports"
        )


def require_captioner(key: str, name: str) -> None:
    """Raise ConfigError if `name`, the value of `key`, is a folder without a captioner or a CLIP.

    Raises:
        ConfigError: names what the folder lacks.
    """
    path = _existing(name)
    if path is None:
        return
    if path.is_file():
        raise ConfigError(f"{key}={name} is a file; give the folder of the model")
    parts = (("config.json",), _WEIGHTS, _TOKENIZER, _PROCESSOR)
    lacking = [" or ".join(part) for part in parts if not _has(path, part)]
    if lacking:
        raise ConfigError(
            f"{key}={name} holds no model that can be used: it has no {', '.join(lacking)}; give a "
            "folder as `save_pretrained` of transformers writes it"
        )


def _existing(name: str) -> Path | None:
    """The path of a model; None where there is none, or a name for the cache of the hub."""
    try:
        path = Path(model_folder(name))
    except ConfigError:
        return None
    return path if path.exists() else None


def _lacks_of_model(folder: Path, *, weights: bool) -> Iterator[str]:
    """What a diffusers folder of a supported family has, and this one has not."""
    try:
        name = str(read_json(folder / INDEX)["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):
        yield f"{INDEX} that names a pipeline"
        return
    family = family_of_pipeline(name)
    if family is None:
        known = " or ".join(each.pipeline for each in FAMILIES)
        yield f"{INDEX} of a {known} (it is a {name})"
        return
    if not _has(folder / SCHEDULER, ("scheduler_config.json",)):
        yield f"{SCHEDULER}/scheduler_config.json"
    for encoder in family.encoders:
        if not _has(folder / encoder.tokenizer, _TOKENIZER):
            yield f"{encoder.tokenizer}/{' or '.join(_TOKENIZER[:2])}"
    for part in (*family.components, AUTOENCODER):
        if not _has(folder / part, ("config.json",)):
            yield f"{part}/config.json"
        if weights and not _has(folder / part, _WEIGHTS):
            yield f"{part}/{_WEIGHTS[0]}"


def _has(folder: Path, patterns: Iterable[str]) -> bool:
    """Whether a file in the folder matches one of the patterns."""
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))
