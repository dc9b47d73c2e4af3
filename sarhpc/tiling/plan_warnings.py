"""Warnings of the tile plan: what is in the archive and nobody may expect."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from sarhpc.shards.sample import SPLITS
from sarhpc.tiling.config import TileConfig

log = logging.getLogger(__name__)

_MIXED = 1.15
"""Ratio of resolutions within an archive from which they count as different."""

_NEGATIVE = 0.001
"""Share of negative pixels in a scene that is worth a warning."""


def warn_of_negative_pixels(scene_id: str, fraction: float) -> None:
    """Warn of a scene of which this share of pixels was stored negative."""
    if fraction > _NEGATIVE:
        log.warning(
            "scene=%s %.1f %% of its pixels are negative (noise subtracted?); they are taken as 0",
            scene_id,
            100 * fraction,
        )


def warn_of_empty_splits(counts: Mapping[str, int], cfg: TileConfig) -> None:
    """Warn of splits that were asked for and have no tile."""
    if not counts.get("tiles"):
        return
    for name, share in zip(SPLITS, cfg.split.fractions, strict=True):
        if share > 0 and not counts.get(f"tiles_{name}"):
            log.warning(
                "no tile fell into the split %s (%g of the ground asked for): nothing is held out "
                "in it; tile more ground, or set tile.split.seed or a smaller tile.split.cell_m",
                name,
                share,
            )


def warn_of_mixed_resolutions(resolutions: Mapping[str, Sequence[float]]) -> None:
    """Warn of scenes whose tiles resolve less than others; widths (azimuth, range) in metres."""
    for axis, name in enumerate(("azimuth", "range")):
        widths = {scene: each[axis] for scene, each in resolutions.items()}
        if widths and max(widths.values()) > _MIXED * min(widths.values()):
            finest, coarsest = (f(widths, key=lambda s: widths[s]) for f in (min, max))
            log.warning(
                "tiles of one spacing mix resolutions: %.3g m in %s for scene %s, %.3g m for %s; "
                "each says its own under `resolution`; select scenes of one resolution, or raise "
                "tile.pixel_m to the coarsest",
                widths[finest], name, finest, widths[coarsest], coarsest,
            )  # fmt: skip
