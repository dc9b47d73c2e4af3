"""The CLIP that reads images and captions: found, checked, named by a digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hpc.errors import ConfigError, DataError
from hpc.store.rundir import RunDir


def loadable_clip(model: str | None, key: str) -> Path:
    """The folder of the CLIP that the setting `key` names; it loads.

    Raises:
        ConfigError: none is named, it cannot be loaded, or its parts do not belong together.
        MissingExtraError: packages that it needs are not installed.
    """
    from sarhpc.extras import require_extra
    from sarhpc.stages.inputs.paths import model_folder

    require_extra("caption", key.rpartition(".")[0])
    if model is None:
        raise unnamed_clip(key)
    from sarhpc.captioning.captioners.clip import load_clip

    folder = Path(model_folder(model))
    try:
        load_clip(folder)
    except DataError as error:
        raise ConfigError(f"{key}={model}: {error}") from error
    return folder


def unnamed_clip(key: str) -> ConfigError:
    """The error where the setting `key` names no CLIP and the run makes none."""
    return ConfigError(
        f"{key}: name the CLIP that reads images and captions, such as embedded:clip, or let the "
        "run train one (clip_train={})"
    )


def clip_folder(run: RunDir, model: str | None) -> Path:
    """The folder of the CLIP that is named, else of the one that the run made."""
    from sarhpc.stages.inputs.paths import model_folder
    from sarhpc.stages.work.sharded import sealed_records

    if model is not None:
        return Path(model_folder(model))
    [trained] = sealed_records(run, "clip-train")
    return Path(trained.path)


def clip_digest(folder: Path) -> str:
    """SHA-256 over what vectors depend on: weights, configuration, image processor, tokenizer."""
    from sarhpc.captioning.captioners.pretrained import weights_digest

    digest = hashlib.sha256(weights_digest(folder).encode())
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".txt")):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
