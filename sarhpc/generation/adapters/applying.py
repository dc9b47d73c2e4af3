"""Merging adapters into the weights of the generating model, each by its weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hpc.errors import DataError
from sarhpc.diffusion.lycoris import is_lycoris_file, merge_lycoris
from sarhpc.generation.adapters.chosen import ChosenAdapter, chosen_adapters
from sarhpc.generation.adapters.fitting import require_fit
from sarhpc.generation.config import GenerateConfig

_ERRORS = (OSError, ValueError, KeyError, RuntimeError, AttributeError, SafetensorError)


def apply_adapters(pipeline: Any, model: Path, cfg: GenerateConfig) -> None:
    """Merge the adapters of `cfg` into the weights of `pipeline`, in order.

    One of weight 0 is not read: with no other the images equal those of the base model byte by
    byte.

    Raises:
        ConfigError: a weight is set without an adapter.
        DataError: an adapter is missing, damaged, or of another model.
    """
    for adapter in chosen_adapters(model, cfg):
        if adapter.weight != 0.0:
            require_fit(adapter.file, model)
            try:
                _merge(pipeline, adapter)
            except _ERRORS as error:
                raise DataError(
                    f"the adapter {adapter.file} does not fit {model}: {error}. Use one trained on "
                    "it."
                ) from error


def _merge(pipeline: Any, adapter: ChosenAdapter) -> None:
    file = adapter.file
    if is_lycoris_file(file):
        merge_lycoris(pipeline, file, adapter.weight)
        return
    pipeline.load_lora_weights(file.parent, weight_name=file.name, local_files_only=True)
    pipeline.fuse_lora(lora_scale=adapter.weight)
    pipeline.unload_lora_weights()
