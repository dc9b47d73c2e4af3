"""A low-rank adapter on a model that generates: off, on, or in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hpc.errors import ConfigError, DataError
from sarhpc.diffusion.config import LORA_FILE
from sarhpc.generation.config import GenerateConfig

_ERRORS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


def adapter_file(model: Path, cfg: GenerateConfig) -> Path | None:
    """The adapter that `cfg` asks for, else the one beside the weights of `model`, else None.

    Raises:
        DataError: the adapter that `cfg` names is not there.
    """
    if cfg.adapter is None:
        beside = model / LORA_FILE
        return beside if beside.is_file() else None
    named = Path(cfg.adapter)
    file = named / LORA_FILE if named.is_dir() else named
    if not file.is_file():
        raise DataError(f"no adapter at {file}: give its file or its folder in generate.adapter.")
    return file


def apply_adapter(pipeline: Any, model: Path, cfg: GenerateConfig) -> None:
    """Fold the adapter of `cfg` into the weights of `pipeline`, scaled by `adapter_weight`.

    At weight 0 nothing is touched: the images are the base model's, to the byte.

    Raises:
        ConfigError: a weight is given and there is no adapter for it.
        DataError: the adapter is missing, torn, or of another model.
    """
    file = adapter_file(model, cfg)
    if file is None:
        if cfg.adapter_weight != 1.0:
            raise ConfigError(
                f"generate.adapter_weight={cfg.adapter_weight} but {model} has no adapter "
                f"({LORA_FILE}): name one in generate.adapter, or leave the weight at 1."
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
            f"the adapter {file} does not go on {model}: {error}. Take the one trained on it."
        ) from error
