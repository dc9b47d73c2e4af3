"""Large scenes of a run: what their plan states, what is refused early, what a dry run says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.scenes.checks import require_layers, require_window
from sarhpc.generation.scenes.memory import FLOAT_BYTES, GIB, scene_memory
from sarhpc.generation.scenes.windows import most_windows
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.controls import steering_layers
from sarhpc.stages.inputs.image_size import model_side, with_planned_size
from sarhpc.stages.inputs.sizes import assumed_side, image_side, tile_side

_PUBLISHED_CHANNELS, _REDUCTION = (128, 256, 512, 512), 8
"""Of the autoencoders of Stable Diffusion and SDXL."""


def planned_scene(
    run: RunDir, config: RunConfig, cfg: GenerateConfig, model: Path, planned: Mapping[str, Any]
) -> dict[str, str]:
    """What the inputs of a shard say of its scenes: the digest of their layout, if they have one.

    Args:
        run: that is planned.
        config: of the run.
        cfg: how images are made.
        model: the diffusers folder.
        planned: inputs of a shard, with the size of tiles where the model's is another.

    Raises:
        ConfigError: a scene is smaller than a tile, or its layout is of no use.
        DataError: the layers that steer are of another size than the scene.
    """
    from sarhpc.generation.scenes.layout import LAYOUT_SHA, layout_digest

    scene = cfg.scene
    if scene is None:
        return {}
    own = model_side(model)
    windows = with_planned_size(cfg, planned)
    for px, side in (
        (windows.height_px or own, scene.rows_px),
        (windows.width_px or own, scene.columns_px),
    ):
        if px is not None:
            require_window(px, side, cfg.SECTION)
    layers = steering_layers(run, config, cfg, (scene.rows_px, scene.columns_px))
    if layers is not None:
        require_layers(scene, layers.load(0))
    return {} if scene.layout is None else {LAYOUT_SHA: layout_digest(Path(scene.layout))}


def check_scene_size(config: RunConfig) -> None:
    """Raise ConfigError if scenes will be smaller than the tiles of the run.

    Raises:
        ConfigError: they are, whichever of tiles and base model the windows will follow.
    """
    cfg, base = config.generate, image_side(config)
    sides = [side for side in (tile_side(config)[1], None if base is None else base[0]) if side]
    if cfg is None or cfg.scene is None or cfg.height_px or cfg.width_px or not sides:
        return
    for side in (cfg.scene.rows_px, cfg.scene.columns_px):
        require_window(min(sides), side, cfg.SECTION)


def scene_notes(config: RunConfig) -> list[str]:
    """Sampling and memory that a scene takes; nothing for images of one window."""
    cfg = config.generate
    if cfg is None or cfg.scene is None:
        return []
    scene, side = cfg.scene, assumed_side(config)
    window = cfg.height_px or side, cfg.width_px or side
    count = most_windows((scene.rows_px, scene.columns_px), window)
    bytes_ = FLOAT_BYTES if cfg.dtype == "float32" else FLOAT_BYTES // 2
    needed = scene_memory(scene, _PUBLISHED_CHANNELS, _REDUCTION, bytes_)
    return [
        f"a scene of {scene.rows_px} x {scene.columns_px} px takes the sampling of up to {count:,} "
        f"images of {window[0]} x {window[1]} px, and with a published autoencoder about "
        f"{needed.decoding / GIB:.3g} GiB where it is decoded and {needed.finishing / GIB:.3g} GiB "
        "of the host's memory, in each worker; it is resumed as a whole, so that a shard of few "
        f"scenes ({cfg.SECTION}.shard_samples, now {cfg.shard_samples}) repeats less after a kill"
    ]
