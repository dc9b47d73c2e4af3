"""How near a few painted images are to real tiles: the measure by which checkpoints are chosen."""

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
class Yardstick:
    """Real tiles as they are measured once, and what halves of them differ by."""

    shape: tuple[int, ...]
    """(H, W) of the tiles."""
    reference: Features
    floors: Mapping[str, float]


def yardstick(real: NDArray[np.uint8], seed: int = 0) -> Yardstick:
    """The measures of real tiles (N, H, W) uint8, to hold painted images against.

    Raises:
        DataError: too few tiles to tell anything.
    """
    if len(real) < 2 * MIN_TILES:
        raise DataError(
            f"{len(real)} real tiles cannot judge images; {2 * MIN_TILES} are the least, some "
            "hundred are better: choose other train.judge.splits, or train without judge"
        )
    reference = measure(real)
    floors = {
        name: floor_of(reference, distance, seed) for name, (distance, *_) in DISTANCES.items()
    }
    return Yardstick(real.shape[1:], reference, floors)


def nearness(painted: NDArray[np.uint8], to: Yardstick) -> dict[str, float]:
    """Every distance of images (N, H, W) uint8 to the real tiles, and the `score` of all.

    The score is the mean over `SCORED` of ln(distance / floor), where floor is what random halves
    of the real tiles differ by and nothing counts as nearer than that: 0 is as good as real, and
    less is better.

    Raises:
        DataError: too few images, or of another size than the tiles.
    """
    if len(painted) < MIN_TILES or painted.shape[1:] != to.shape:
        raise DataError(
            f"images {painted.shape} cannot be compared with real tiles {to.shape}: paint "
            f"{MIN_TILES} or more (train.validation_prompts times train.validation_seeds), of the "
            "size of the tiles (train.image_px)"
        )
    found = measure(painted)
    weights, real = uniform(found), uniform(to.reference)
    raw = {
        name: distance(found, weights, to.reference, real)
        for name, (distance, *_) in DISTANCES.items()
    }
    over = [math.log(max(raw[name] / to.floors[name], 1.0)) for name in SCORED if to.floors[name]]
    return {**raw, SCORE: sum(over) / len(over) if over else 0.0}
