"""Models from outside: which, at which revision, under which licence, with which bytes.

`fetch` copies one to the cache as a plain folder, from its hub or from a given folder; jobs read
that folder and need no network. The weights are pinned by SHA-256, everything else by the commit.
"""

from __future__ import annotations

import fnmatch
import json
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpc.errors import ConfigError, DataError, TransientError, VerificationError
from hpc.publish import Digest, commit_directory, digest_file, publish_json
from hpc.store.rundir import now
from sarhpc.diffusion.families.sd15 import SD15
from sarhpc.diffusion.families.sdxl import SDXL

FETCHED = "fetched.json"
SCHEMA = "sarhpc.model/1"


@dataclass(frozen=True)
class Model:
    """A model at one commit of its repository."""

    name: str
    """As in `sarhpc fetch NAME` and `fetched:NAME`."""
    repository: str
    revision: str
    """Commit, 40 hex digits."""
    licence: str
    licence_url: str
    files: tuple[str, ...]
    """Files to fetch, as patterns; each must match something."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """The weights."""
    pickled: str | None = None
    """Weights that only exist as a pickle; read as tensors alone and written as safetensors."""
    use: str = ""
    """The override that makes a run use it."""


MODELS = (
    Model(
        name=SD15.key,
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        licence="CreativeML OpenRAIL-M",
        licence_url="https://huggingface.co/spaces/CompVis/stable-diffusion-license",
        files=SD15.folder_files(),
        sha256={
            "unet/diffusion_pytorch_model.safetensors":
                "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1",
            "vae/diffusion_pytorch_model.safetensors":
                "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c",
            "text_encoder/model.safetensors":
                "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334",
        },
        use="train.base_model",
    ),
    Model(
        name=SDXL.key,
        repository="stabilityai/stable-diffusion-xl-base-1.0",
        revision="462165984030d82259a11f4367a4eed129e94a7b",
        licence="CreativeML OpenRAIL++-M",
        licence_url="https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/"
                    "462165984030d82259a11f4367a4eed129e94a7b/LICENSE.md",
        files=("LICENSE.md", *SDXL.folder_files()),
        sha256={
            "unet/diffusion_pytorch_model.safetensors":
                "357650fbfb3c7b4d94c1f5fd7664da819ad1ff5a839430484b4ec422d03f710a",
            "vae/diffusion_pytorch_model.safetensors":
                "1598f3d24932bcfe6634e8b618ea1e30ab1d57f5aad13a6d2de446d2199f2341",
            "text_encoder/model.safetensors":
                "5c3d6454dd2d23414b56aa1b5858a72487a656937847b6fea8d0606d7a42cdbc",
            "text_encoder_2/model.safetensors":
                "3a6032f63d37ae02bbc74ccd6a27440578cd71701f96532229d0154f55a8d3ff",
        },
        use="train.base_model",
    ),
    Model(
        name="blip",
        repository="Salesforce/blip-image-captioning-base",
        revision="82a37760796d32b1411fe092ab5d4e227313294b",
        licence="BSD-3-Clause",
        licence_url="https://github.com/salesforce/BLIP/blob/main/LICENSE.txt",
        files=("config.json", "preprocessor_config.json", "special_tokens_map.json",
               "tokenizer.json", "tokenizer_config.json", "vocab.txt", "pytorch_model.bin"),
        sha256={
            "pytorch_model.bin":
                "d6638651a5526cc2ede56f2b5104d6851b0755816d220e5e046870430180c767",
        },
        pickled="pytorch_model.bin",
        use="caption.model",
    ),
)  # fmt: skip


def model_named(name: str) -> Model:
    """The model of that name.

    Raises:
        ConfigError: it is not among MODELS.
    """
    for model in MODELS:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in MODELS)
    raise ConfigError(f"no model {name!r} to fetch; known: {known}")


def cache_root() -> Path:
    """The shared cache: `$SARHPC_MODELS`, else `models` in `$HF_HOME`, else in the home's cache."""
    for name, inside in (("SARHPC_MODELS", ""), ("HF_HOME", "models")):
        if os.environ.get(name):
            return Path(os.environ[name]) / inside
    return Path.home() / ".cache" / "sarhpc" / "models"


def fetch(model: Model, root: Path, source: Path | None = None) -> Path:
    """The folder of `model` under `root`, fetched if it is not there; complete or not at all.

    An interrupted download resumes.

    Args:
        model: which.
        root: of the cache.
        source: a folder that holds its files; None for its hub.

    Raises:
        DataError: `source` lacks a file.
        VerificationError: a file is not the pinned one; it is removed from the download.
        TransientError: the hub cannot be reached.
    """
    target = root / model.name
    if target.is_dir():
        require_whole(model, target)
        return target
    partial = root / f".partial-{model.name}-{model.revision[:8]}"
    partial.mkdir(parents=True, exist_ok=True)
    if source is None:
        _download(model, partial)
    else:
        _copy(model, source, partial)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    files = _checked(model, partial)
    if model.pickled is not None:
        _write_as_safetensors(partial, model.pickled)
        files = {name: digest_file(partial / name) for name in _names(partial)}
    document = {
        "schema": SCHEMA,
        "name": model.name,
        "repository": model.repository,
        "revision": model.revision,
        "licence": model.licence,
        "licence_url": model.licence_url,
        "fetched": now(),
        "source": "hub" if source is None else str(source.resolve()),
        "files": {name: vars(digest) for name, digest in sorted(files.items())},
    }
    publish_json(partial / FETCHED, document)
    commit_directory(partial, target)
    return target


def require_whole(model: Model, folder: Path, *, deep: bool = False) -> None:
    """Raise VerificationError unless `folder` holds `model` as it was fetched.

    Sizes are compared; with `deep` every byte.
    """
    repair = f"remove {folder}, then: sarhpc fetch {model.name}"
    try:
        document = json.loads((folder / FETCHED).read_text())
        revision, files = document["revision"], dict(document["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerificationError(f"{folder} was not fetched: {error!r}; {repair}") from error
    if revision != model.revision:
        raise VerificationError(
            f"{folder} has revision {revision}, pinned is {model.revision}; {repair}"
        )
    for name, recorded in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != recorded["bytes"]:
            raise VerificationError(f"{path} is missing or cut short; {repair}")
        if deep and digest_file(path).sha256 != recorded["sha256"]:
            raise VerificationError(f"{path} has another SHA-256 than when fetched; {repair}")


def _download(model: Model, folder: Path) -> None:
    # The hub's client reads this when it is imported; jobs are offline, `fetch` is not.
    os.environ["HF_HUB_OFFLINE"] = "0"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        snapshot_download(
            model.repository,
            revision=model.revision,
            local_dir=folder,
            allow_patterns=list(model.files),
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise TransientError(
            f"cannot download {model.repository}: {' '.join(str(error).split())[:300]}. "
            "Fetch on a node with network (a login node), or give the files: "
            f"sarhpc fetch {model.name} --from FOLDER"
        ) from error


def _copy(model: Model, source: Path, folder: Path) -> None:
    names = _names(source)
    for pattern in model.files:
        found = fnmatch.filter(names, pattern)
        if not found and pattern in _required(model):
            raise DataError(
                f"{source} has no {pattern}; give a folder with the files of {model.repository} "
                f"at {model.revision}"
            )
        for name in found:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)


def _required(model: Model) -> Sequence[str]:
    """The files without which the model is none; licences may be missing in a copy."""
    return [name for name in model.files if not name.startswith("LICENSE")]


def _names(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _checked(model: Model, folder: Path) -> dict[str, Digest]:
    """Digest of every file, the pinned ones compared."""
    names = _names(folder)
    lacking = [pattern for pattern in _required(model) if not fnmatch.filter(names, pattern)]
    if lacking:
        raise DataError(f"{model.repository} at {model.revision} has no {', '.join(lacking)}")
    files = {name: digest_file(folder / name) for name in names}
    for name, pinned in model.sha256.items():
        if files[name].sha256 != pinned:
            (folder / name).unlink()
            raise VerificationError(
                f"{name} of {model.repository} has SHA-256 {files[name].sha256}, pinned is "
                f"{pinned}; it was removed. Fetch again, or from another source"
            )
    return files


def _write_as_safetensors(folder: Path, pickled: str) -> None:
    """Replace a pickle by `model.safetensors`; it is read as tensors, no code in it can run."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration

    try:
        state = torch.load(folder / pickled, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise VerificationError(
            f"{folder / pickled} holds more than weights, or is truncated; nothing in it was run: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    model = BlipForConditionalGeneration(BlipConfig.from_pretrained(folder))
    found = model.load_state_dict(state, strict=False)
    model.tie_weights()
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    lacking = sorted(set(found.missing_keys) - tied)
    if lacking:
        raise DataError(f"{folder / pickled} lacks {len(lacking)} weights, such as {lacking[0]}")
    model.save_pretrained(folder)
    (folder / pickled).unlink()
