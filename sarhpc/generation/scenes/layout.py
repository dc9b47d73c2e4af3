"""The layout of a scene: a small picture whose values name regions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpc.errors import ConfigError, DataError, VerificationError
from sarhpc.generation.scenes.config import SceneConfig
from sarhpc.shards.pictures import opened_picture

LAYOUT_SHA = "layout_sha256"
"""Entry of a shard's inputs, and of `scene` in `meta.json`: digest of the layout's file."""
SAME_SHAPE = 0.02
"""Relative difference of the ratios of sides up to which layout and scene have one shape."""


def layout_digest(path: Path) -> str:
    """SHA-256 of the file of a layout."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_layout(scene: SceneConfig, at: str) -> NDArray[np.uint8]:
    """Values (H, W) of the layout's picture.

    Args:
        scene: with a layout.
        at: name of its settings, for messages.

    Raises:
        ConfigError: it is no PNG of one channel, of another shape than the scene, or its values are
            not those of the regions.
    """
    path = Path(str(scene.layout))
    try:
        with opened_picture(path, ("PNG",)) as picture:
            mode, values = picture.mode, np.asarray(picture)
    except (OSError, DataError) as error:
        raise ConfigError(f"cannot read {at}.layout {path}: {error}") from error
    if mode not in ("L", "P"):
        raise ConfigError(
            f"{at}.layout {path} is a picture of mode {mode}: its values name regions, so save it "
            "with one channel of 8 bits (gray, or with a palette), without alpha"
        )
    _require_shape(values, scene, at)
    _require_regions(values, scene, at)
    return np.asarray(values, np.uint8)


def _require_shape(values: NDArray[np.uint8], scene: SceneConfig, at: str) -> None:
    rows, columns = values.shape
    stretch = rows * scene.columns_px / (columns * scene.rows_px)
    if not 1 - SAME_SHAPE <= stretch <= 1 + SAME_SHAPE:
        raise ConfigError(
            f"{at}.layout {scene.layout} has {rows} x {columns} px, and a scene of "
            f"{scene.rows_px} x {scene.columns_px} px has another shape: draw it with sides in the "
            "same ratio"
        )


def _require_regions(values: NDArray[np.uint8], scene: SceneConfig, at: str) -> None:
    found = {int(value) for value in np.unique(values)}
    count = len(scene.regions)
    beyond = sorted(value for value in found if value > count)
    if beyond:
        raise ConfigError(
            f"{at}.layout {scene.layout} has the value {beyond[0]}, and {at}.regions describes "
            f"{count}: give a description for each value from 1 on; 0 is the prompt of the image"
        )
    missing = [value for value in range(1, count + 1) if value not in found]
    if missing:
        raise ConfigError(
            f"{at}.regions describes value {missing[0]} as {scene.regions[missing[0] - 1]!r:.60}, "
            f"which no pixel of {scene.layout} has: draw it, or leave the description out"
        )


def require_planned(scene: SceneConfig, planned: str | None) -> str:
    """The digest of the layout, which is that of the plan.

    Raises:
        VerificationError: the file has changed since.
    """
    path = Path(str(scene.layout))
    digest = layout_digest(path)
    if planned is not None and digest != planned:
        raise VerificationError(
            f"{path} is not the layout that was planned (SHA-256 {digest[:12]}, planned "
            f"{planned[:12]}): restore it; a new layout needs a new run"
        )
    return digest


def on_latent(values: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The value (h, w) at the middle of each latent pixel."""
    rows, columns = (
        ((np.arange(latent) + 0.5) * drawn / latent).astype(np.intp)
        for latent, drawn in zip(size, values.shape, strict=True)
    )
    return np.asarray(values[rows][:, columns])
