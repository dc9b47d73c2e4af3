"""Configuration of large scenes: their size, the layout of their regions, how they are decoded."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SceneConfig:
    """Images larger than the tiles of the model, denoised in windows as large as those tiles.

    At each step the grid of windows is shifted by another offset, and each latent pixel takes one
    prediction, never a mean, which would smooth speckle. `batch` is then windows per call of the
    network; scenes are made one at a time.
    """

    rows_px: int
    """Rows of a scene, px, a multiple of 8 and no fewer than a tile has."""
    columns_px: int
    """Columns of a scene, px, likewise."""
    layout: str | None = None
    """PNG of one channel that assigns regions to prompts, stretched to the scene without
    interpolation: value 0 is the prompt of the image, value n the n-th of `regions`."""
    regions: list[str] = field(default_factory=list)
    """Descriptions of the regions of `layout`, from value 1 on, without trigger words."""
    decode_px: int = 1024
    """Longest side that is decoded at once, px, a multiple of 8; larger scenes are decoded in parts
    of this side, with the same result. Smaller parts take less memory and more time."""
