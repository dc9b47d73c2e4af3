"""Applying a low-rank adapter to the generating model, fully or in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hpc.errors import ConfigError, DataError
from sarhpc.diffusion.config import LORA_FILE
from sarhpc.generation.config import GenerateConfig

_ERRORS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


def adapter_file(model: Path, cfg: GenerateConfig) -> Path | None:
    """The adapter named by `cfg`, otherwise the one in folder `model`, otherwise None.

    Raises:
        DataError: the adapter named by `cfg` does not exist.
    """
    if cfg.adapter is None:
        own = model / LORA_FILE
        return own if own.is_file() else None
    named = Path(cfg.adapter)
    file = named / LORA_FILE if named.is_dir() else named
    if not file.is_file():
        raise DataError(f"no adapter at {file}: set generate.adapter to its file or folder.")
    return file


def apply_adapter(pipeline: Any, model: Path, cfg: GenerateConfig) -> None:
    """Merge the adapter of `cfg` into the weights of `pipeline`, scaled by `adapter_weight`.

    At weight 0 the weights are unchanged: the images equal those of the base model byte by byte.

    Raises:
        ConfigError: a weight is set without an adapter.
        DataError: the adapter is missing, damaged, or of another model.
    """
    file = adapter_file(model, cfg)
    if file is None:
        if cfg.adapter_weight != 1.0:
            raise ConfigError(
                f"generate.adapter_weight={cfg.adapter_weight} but {model} has no adapter "
                f"({LORA_FILE}): set generate.adapter, or leave the weight at 1."
            )
        return
    if cfg.adapter_weight == 0.0:
        return
    try:
        pipeline.load_lora_weights(file.parent, weight_name=file.name, local_files_only=True)
        pipeline.fuse_lora(lora_scale=cfg.adapter_weight)
        pipeline.unload_lora_weights()
    except _ERRORS as error:
        raise DataError(
            f"the adapter {file} does not fit {model}: {error}. Use one trained on it."
        ) from error
