"""Mean power of an image brought back to that of the one it began with: layout stays, speckle goes.

What a simulation knows is the mean backscatter of each place; what it lacks is speckle and texture
finer than that. A model gives both, and moves the former.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sarhpc.generation.pixels import planned_contract
from sarhpc.generation.sources.checks import require_law
from sarhpc.generation.sources.source_images import SourceImage
from sarhpc.shards.radiometry import LEVEL_FLOOR, Normalisation

if TYPE_CHECKING:
    from sarhpc.generation.config import GenerateConfig

Levels = NDArray[np.float32]


def kept_mean_power(
    images: Iterable[Levels],
    begun: Sequence[SourceImage],
    inputs: Mapping[str, Any],
    cfg: GenerateConfig,
) -> list[Levels]:
    """The images (H, W, 3) of a batch, with the mean power of those that they began with.

    They are as they were without `image_to_image.keep_mean_px`.
    """
    if not begun or cfg.image_to_image is None or cfg.image_to_image.keep_mean_px is None:
        return list(images)
    law = require_law(cfg, planned_contract(inputs))
    width = cfg.image_to_image.keep_mean_px
    return [
        with_mean_power(image, source.levels, law, width)
        for image, source in zip(images, begun, strict=True)
    ]


def with_mean_power(image: Levels, source: Levels, law: Normalisation, width_px: float) -> Levels:
    """Levels (H, W, 3), each pixel's amplitude scaled such that local mean powers are the source's.

    Args:
        image: levels (H, W, 3) in [0, 1].
        source: levels (H, W) in [0, 1] whose mean power is taken over.
        law: by which levels are amplitude.
        width_px: standard deviation of the Gaussian of the local mean, px.
    """
    floor = (LEVEL_FLOOR * law.top) ** 2
    amplitude = law.amplitudes(image)
    power = [
        gaussian_filter(np.square(each.astype(np.float64)), width_px, mode="nearest") + floor
        for each in (law.amplitudes(source), law.amplitudes(image.mean(axis=2)))
    ]
    gain = np.sqrt(power[0] / power[1]).astype(np.float32)
    return law.levels(amplitude * gain[:, :, None])
