"""Loading pretrained models from local folders: completeness, device, dtype, revision."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hpc.errors import ConfigError, DataError
from hpc.publish import digest_file

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_WHAT = (
    "It must be a folder with config.json, model.safetensors, preprocessor_config.json and "
    "tokenizer files, or a model that `sarhpc fetch` has brought to HF_HOME."
)


def load_parts(
    family: str, classes: tuple[Any, Any, Any], name: str | Path, dtype: torch.dtype
) -> tuple[Any, Any, Any]:
    """Model, image processor and tokenizer, of `classes` in this order, from a folder or `HF_HOME`.

    No network, no pickle, evaluation mode.

    Raises:
        DataError: a file or a weight is missing.
    """
    model_class, processor_class, tokenizer_class = classes
    if Path(name).is_absolute() and not Path(name).is_dir():
        # The library takes it for a name on the hub, and complains of that.
        raise DataError(f"cannot load {family} from {name}: there is no such folder. {_WHAT}")
    try:
        with _without_progress_bar():
            model, found = model_class.from_pretrained(
                name,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        processor = processor_class.from_pretrained(name, local_files_only=True)
        tokenizer = tokenizer_class.from_pretrained(name, local_files_only=True)
    except Exception as error:  # damaged files end the libraries in any exception
        raise DataError(f"cannot load {family} from {name}: {error}. {_WHAT}") from error
    if found["missing_keys"]:
        # The library would initialise missing weights at random and go on.
        raise DataError(
            f"{name} lacks {len(found['missing_keys'])} weights of {family}, among them "
            f"{min(found['missing_keys'])}: fetch or export it again."
        )
    return model.eval(), processor, tokenizer


@contextlib.contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar, which logs and terminals of a verb do not need."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def model_name(name: str) -> str:
    """The name of the model in records: the last part of a folder, else the name itself."""
    return Path(name).name if Path(name).is_dir() else name


def model_revision(name: str, model: Any) -> str:
    """Revision of the weights: the start of their digest for a folder, else the hub's commit."""
    if Path(name).is_dir():
        return weights_digest(Path(name))[:16]
    return str(getattr(model.config, "_commit_hash", None) or "")


def weights_digest(folder: Path) -> str:
    """SHA-256 over the safetensors files of a model folder, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {digest_file(path).sha256}\n".encode())
    return digest.hexdigest()


def pick_device(device: str) -> str:
    """`device`, with `auto` resolved to CUDA where there is one, else the CPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def pick_dtype(name: str | None, device: str, on_cuda: str = "bfloat16") -> torch.dtype:
    """Dtype of the weights: `name`, else `on_cuda` on CUDA and float32 on a CPU.

    Raises:
        ConfigError: no such format.
    """
    name = name or (on_cuda if device.startswith("cuda") else "float32")
    if name not in _DTYPES:
        raise ConfigError(f"caption.dtype={name!r}: take {', '.join(_DTYPES)}, or null.")
    return _DTYPES[name]


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads inside the block, as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
