"""Homogeneous areas of generated images, in their metadata where the corpus asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import ConfigError
from sarhpc.generation.config import GenerateConfig, HomogeneousAreasConfig
from sarhpc.generation.pixels import planned_contract
from sarhpc.measures.homogeneous_areas import homogeneous_areas
from sarhpc.measures.speckle_correlation import lag_products, speckle_autocorrelation
from sarhpc.shards.radiometry import Normalisation, decode_levels, encode_levels

HOMOGENEOUS_AREAS = "homogeneous_areas"
"""Entry of `meta.json`, and column of the index."""


def area_facts(
    inputs: Mapping[str, Any], cfg: GenerateConfig
) -> Callable[[NDArray[np.float32]], dict[str, Any]]:
    """What a shard's images (H, W, 3) in [0, 1] say of their homogeneous areas, if anything.

    Areas are found in the intensity that the 16-bit master of an image holds.

    Raises:
        ConfigError: they are asked for, but no contract says what the pixels mean.
    """
    wanted = cfg.homogeneous_areas
    if wanted is None:
        return lambda image: {}
    contract = planned_contract(inputs)
    law = None if contract is None else contract.law
    if contract is None or law is None:
        raise ConfigError(
            f"{cfg.SECTION}.homogeneous_areas needs the intensity of pixels, which no contract of "
            "the model states: write one (`sarhpc contract`), or set "
            f"{cfg.SECTION}.homogeneous_areas=null in a new run"
        )
    floor = contract.level_floor or 0.0
    return lambda image: {HOMOGENEOUS_AREAS: _areas(image.mean(axis=2), law, floor, wanted)}


def _areas(
    gray: NDArray[np.float32], law: Normalisation, floor: float, wanted: HomogeneousAreasConfig
) -> list[dict[str, Any]]:
    intensity = law.amplitudes(decode_levels(encode_levels(gray, floor))).astype(np.float64) ** 2
    try:
        correlation = speckle_autocorrelation(lag_products(intensity), wanted.looks)
        found = homogeneous_areas(intensity, wanted.looks, correlation, wanted.side_px)
    except ValueError:
        # Without contrast or without power somewhere there is no speckle to measure.
        return []
    return [asdict(area) for area in found]
