"""Sides of tiles and of the images that a base model makes, known before either is there."""

from __future__ import annotations

from pathlib import Path

from hpc.documents import read_json
from hpc.errors import ConfigError
from sarhpc.diffusion.families.registry import family_of
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import model_folder


def tile_side(config: RunConfig) -> tuple[str, int | None]:
    """Side of the tiles of a run, px, and the setting that says it; None for images as they are."""
    if config.imported is not None:
        return "imported.px", config.imported.px
    return "tile.tile_px", config.tile.tile_px


def assumed_side(config: RunConfig) -> int:
    """Side of the tiles of a run, px, for estimates: `tile.tile_px` for images as they are."""
    return tile_side(config)[1] or config.tile.tile_px


def image_side(config: RunConfig) -> tuple[int, int] | None:
    """Side of the images that the base model makes, px, and pixels to a side of its latents.

    None where the base is not there, or no diffusers folder.
    """
    try:
        base = Path(model_folder(config.train.base_model))
        backbone = read_json(base / family_of(base).backbone / "config.json")
        reduction = 2 ** (len(read_json(base / "vae" / "config.json")["block_out_channels"]) - 1)
        return int(backbone["sample_size"]) * reduction, reduction
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return None


def check_sizes(config: RunConfig) -> None:
    """Raise ConfigError if tiles are of a side that their training will refuse.

    Raises:
        ConfigError: the base's latents do not divide it, or a judge would compare tiles with grid
            images of another side.
    """
    key, side = tile_side(config)
    found = image_side(config)
    if side is None or found is None:
        return
    native, reduction = found
    if side % reduction:
        below = side // reduction * reduction
        near = [str(px) for px in (below, below + reduction) if px]
        raise ConfigError(
            f"{key}={side} is no multiple of {reduction}, pixels to a latent of "
            f"{config.train.base_model}; give {' or '.join(near)}"
        )
    grid = config.train.image_px or native
    if config.train.judge is not None and grid != side:
        own = "" if config.train.image_px else f", the size of {config.train.base_model}"
        raise ConfigError(
            f"train.judge compares tiles of {side} px ({key}) with grid images of {grid} px{own}: "
            f"set train.image_px={side}"
        )


def size_notes(config: RunConfig) -> list[str]:
    """A note if images follow the tiles and not the size of the base model."""
    key, side = tile_side(config)
    found = image_side(config)
    cfg = config.generate
    if cfg is None or side is None or found is None or cfg.height_px or cfg.width_px or cfg.scene:
        return []
    if found[0] == side:
        return []
    return [
        f"images are {side} px, as the tiles are ({key}), and {config.train.base_model} was made "
        f"for {found[0]} px; to say so yourself: generate.height_px={side} "
        f"generate.width_px={side}"
    ]
