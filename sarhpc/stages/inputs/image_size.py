"""The size of generated images: that of the tiles which the model was trained on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.scenes.checks import image_size as stated_size
from sarhpc.stages.inputs.prompts import TRAIN_SPLITS, sample_shards

_BACKBONE, _AUTOENCODER = "unet", "vae"


def size_of_tiles(run: RunDir, cfg: GenerateConfig, model: Path) -> dict[str, list[int]]:
    """`size_px` (rows, cols) for the plan of a corpus; empty where the model's own size is meant.

    A model is called with its own size, that of its base, however large its tiles were; images of
    another size than the real ones cannot be compared with them.

    Raises:
        ConfigError: the tiles are of a size that no image can have.
        DataError: the tiles cannot be read.
    """
    if cfg.height_px is not None or cfg.width_px is not None:
        return {}
    size, own = _tile_size(run), model_side(model)
    if size is None or own is None or size == [own, own]:
        return {}
    step = _reduction(model)
    if any(side % step for side in size):
        at = cfg.SECTION
        raise ConfigError(
            f"the tiles are {size[0]} x {size[1]} px, and images of {model.name} are multiples of "
            f"{step} px: give tiles of such a size, or set {at}.height_px and {at}.width_px"
        )
    return {"size_px": size}


def size_of_images(run: RunDir, cfg: GenerateConfig, model: Path) -> tuple[int, int] | None:
    """Rows and columns of the images of a corpus; None where nothing states them.

    Raises:
        ConfigError: the tiles are of a size that no image can have.
        DataError: the tiles cannot be read.
    """
    return image_size(with_planned_size(cfg, size_of_tiles(run, cfg, model)), model)


def with_planned_size(cfg: GenerateConfig, inputs: Mapping[str, Any]) -> GenerateConfig:
    """The settings with the size of images that their plan holds, if it holds one."""
    if "size_px" not in inputs:
        return cfg
    height, width = inputs["size_px"]
    return dataclasses.replace(cfg, height_px=height, width_px=width)


def image_size(cfg: GenerateConfig, model: Path) -> tuple[int, int] | None:
    """Height and width of the images of a model, px; None where neither says it."""
    own, shown = model_side(model), stated_size(cfg)
    height, width = (side or own for side in shown)
    return None if height is None or width is None else (height, width)


def _tile_size(run: RunDir) -> list[int] | None:
    from sarhpc.shards.pictures import opened_picture
    from sarhpc.shards.reader import read_member

    shards = sample_shards(run, TRAIN_SPLITS) if run.ledger("caption").sealed else []
    for shard in shards:
        for _, data in read_member(shard, "sar.png"):
            with opened_picture(data, ("PNG",)) as picture:
                return [picture.height, picture.width]
    return None


def model_side(model: Path) -> int | None:
    """Side of the images of a diffusers folder, px; None where its configuration states none."""
    sample = _config(model, _BACKBONE).get("sample_size")
    return sample * _reduction(model) if isinstance(sample, int) else None


def _reduction(model: Path) -> int:
    """Pixels along each side of a latent number."""
    blocks = _config(model, _AUTOENCODER).get("block_out_channels")
    return int(2 ** (len(blocks) - 1)) if isinstance(blocks, list) and blocks else 8


def _config(model: Path, part: str) -> dict[str, Any]:
    try:
        value = json.loads((model / part / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
