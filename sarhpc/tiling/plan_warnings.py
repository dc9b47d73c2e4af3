"""Warnings of the tile plan: what is unexpected in the archive."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

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
