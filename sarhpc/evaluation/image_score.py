"""Score of a few generated images against real tiles, by which checkpoints are selected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.evaluation.config import MIN_TILES
from sarhpc.evaluation.suite import floor_of
from sarhpc.measures.distances import DISTANCES, uniform
from sarhpc.measures.features import Features, measure

SCORED = ("E3_jsd", "E4_acf", "E5_lsd")
"""One distance each of levels, speckle and spectrum."""
SCORE = "score"


@dataclass(frozen=True)
class RealReference:
    """Features of the real tiles, and the distances between random halves of them."""

    shape: tuple[int, ...]
    """(H, W) of the tiles."""
    reference: Features
    floors: Mapping[str, float]


def real_reference(real: NDArray[np.uint8], seed: int = 0) -> RealReference:
    """The reference of real tiles (N, H, W) uint8, to score generated images against.

    Raises:
        DataError: too few tiles.
    """
    if len(real) < 2 * MIN_TILES:
        raise DataError(
            f"{len(real)} real tiles are too few to judge images; at least {2 * MIN_TILES}, some "
            "hundred are better: set other train.judge.splits, or train without train.judge"
        )
    reference = measure(real)
    floors = {
        name: floor_of(reference, distance, seed) for name, (distance, *_) in DISTANCES.items()
    }
    return RealReference(real.shape[1:], reference, floors)


def score_images(images: NDArray[np.uint8], to: RealReference) -> dict[str, float]:
    """Every distance of images (N, H, W) uint8 to the real tiles, and the `score` of all.

    The score is the mean over `SCORED` of ln(distance / floor), where floor is the distance between
    random halves of the real tiles and ratios below 1 count as 1: 0 is as good as real, and lower
    is better.

    Raises:
        DataError: too few images, or of another size than the tiles.
    """
    if len(images) < MIN_TILES or images.shape[1:] != to.shape:
        raise DataError(
            f"images {images.shape} cannot be compared with real tiles {to.shape}: generate "
            f"{MIN_TILES} or more (train.validation_prompts times train.validation_seeds), of the "
            "size of the tiles (train.image_px)"
        )
    found = measure(images)
    weights, real = uniform(found), uniform(to.reference)
    raw = {
        name: distance(found, weights, to.reference, real)
        for name, (distance, *_) in DISTANCES.items()
    }
    over = [math.log(max(raw[name] / to.floors[name], 1.0)) for name in SCORED if to.floors[name]]
    return {**raw, SCORE: sum(over) / len(over) if over else 0.0}
