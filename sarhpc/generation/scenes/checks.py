"""Settings of large scenes that cannot work, found before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, DataError
from sarhpc.generation.scenes.config import SceneConfig

if TYPE_CHECKING:
    from sarhpc.generation.config import GenerateConfig
    from sarhpc.generation.steering import SteeringLayer

MOST_PX = 1 << 28
"""Pixels of a picture that is read again, as `shards.pictures` bounds it: 16,384 x 16,384."""
STEP_PX = 8


def image_size(cfg: GenerateConfig) -> tuple[int | None, int | None]:
    """Rows and columns of the images, px; None where they follow from the model."""
    if cfg.scene is None:
        return cfg.height_px, cfg.width_px
    return cfg.scene.rows_px, cfg.scene.columns_px


def check_scene(cfg: GenerateConfig) -> None:
    """Raise ConfigError unless scenes can be made as configured; of no effect without `scene`.

    Raises:
        ConfigError: they cannot; the message names the setting.
    """
    scene, at = cfg.scene, f"{cfg.SECTION}.scene"
    if scene is None:
        return
    _require_combination(cfg, at)
    for name, side in (("rows_px", scene.rows_px), ("columns_px", scene.columns_px)):
        if side < STEP_PX or side % STEP_PX:
            raise ConfigError(f"{at}.{name} is {side}: must be a multiple of {STEP_PX}.")
    if scene.decode_px < STEP_PX or scene.decode_px % STEP_PX:
        raise ConfigError(f"{at}.decode_px is {scene.decode_px}: must be a multiple of {STEP_PX}.")
    pixels = scene.rows_px * scene.columns_px
    if pixels > MOST_PX:
        raise ConfigError(
            f"{at}: {scene.rows_px:,} x {scene.columns_px:,} px are {pixels:,} pixels, and "
            f"pictures of up to {MOST_PX:,} can be read again: make a smaller scene."
        )
    for window, side in ((cfg.height_px, scene.rows_px), (cfg.width_px, scene.columns_px)):
        if window is not None:
            require_window(window, side, cfg.SECTION)
    _check_layout(cfg, scene, at)


def require_window(window: int, side: int, section: str) -> None:
    """Raise ConfigError unless a window of `window` px fits in a scene of `side` px.

    Raises:
        ConfigError: it does not.
    """
    if window > side:
        raise ConfigError(
            f"{section}.scene is {side} px along an axis, and the model makes images of {window} "
            f"px: make the scene larger, or leave {section}.scene out and set "
            f"{section}.height_px and {section}.width_px."
        )


def require_layers(scene: SceneConfig, steer: SteeringLayer) -> None:
    """Raise DataError unless the conditioning layers have the size of the scene.

    Raises:
        DataError: one has another.
    """
    for control in (steer, *steer.further):
        rows, columns, _ = control.layer.shape
        if (rows, columns) != (scene.rows_px, scene.columns_px):
            raise DataError(
                f"the conditioning layer of {control.key} has {rows} x {columns} px and cannot "
                f"steer a scene of {scene.rows_px} x {scene.columns_px} px: give layers as large "
                "as the scene (generate.steer), or make the scene as large as the layers"
            )


def _require_combination(cfg: GenerateConfig, at: str) -> None:
    if cfg.SECTION == "prior":
        raise ConfigError(
            f"{at}: regularisation images are as large as training tiles; leave it out."
        )
    if cfg.sweep is not None:
        raise ConfigError(
            f"{at} with {cfg.SECTION}.sweep: sweeps image layouts of one tile; leave one of the "
            "two out."
        )
    if cfg.image_to_image is not None:
        raise ConfigError(
            f"{at} with {cfg.SECTION}.image_to_image: the windows of a scene begin with noise; "
            "leave one of the two out."
        )
    controls = [] if cfg.steer is None else [cfg.steer, *cfg.steer.further]
    if any(control.shards is None and control.sketch is None for control in controls):
        raise ConfigError(
            f"{at} with {cfg.SECTION}.steer: the layers of the run's own tiles are as large as "
            f"tiles; name shards with layers as large as the scene ({cfg.SECTION}.steer.shards), "
            f"or a drawing ({cfg.SECTION}.steer.sketch)."
        )
    judged: Sequence[str] = []
    if cfg.gate is not None:
        judged = [name for name in ("memorised", "other_class") if getattr(cfg.gate, name)]
    if judged:
        raise ConfigError(
            f"{cfg.SECTION}.gate.{judged[0]} compares images with tiles of their own size, which "
            f"scenes of {at} exceed: set {cfg.SECTION}.gate.{judged[0]}=null; the rest of the gate "
            "measures scenes as a whole."
        )


def _check_layout(cfg: GenerateConfig, scene: SceneConfig, at: str) -> None:
    from sarhpc.generation.scenes.layout import read_layout

    if scene.layout is None:
        if scene.regions:
            raise ConfigError(
                f"{at}.regions describes the values of {at}.layout, which is not set: name the "
                "picture that says where the regions are."
            )
        return
    if any(not text.strip() for text in scene.regions):
        raise ConfigError(f"{at}.regions holds an empty description: remove it.")
    rest = cfg.prompt_template.replace("{prompt}", "")
    if "{" in rest:
        raise ConfigError(
            f"{cfg.SECTION}.prompt_template {cfg.prompt_template!r} takes values from a prompt "
            f"table, which {at}.regions does not have: state them in the text of the template."
        )
    read_layout(scene, at)
