"""Score of a few generated images against real tiles, by which checkpoints are selected."""

from __future__ import annotations

import functools
import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.evaluation.config import MIN_TILES
from sarhpc.measures.distances import DISTANCES, uniform
from sarhpc.measures.features import Features, measure
from sarhpc.measures.nulls import Null, TooFewGroupsError, draw_null
from sarhpc.measures.score import LEAST, SCORED, mean_log

SCORE = "score"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RealReference:
    """Features of the real tiles, and their scenes, by which nulls are drawn."""

    shape: tuple[int, ...]
    """(H, W) of the tiles."""
    reference: Features
    scenes: tuple[Hashable, ...]
    seed: int


@dataclass(frozen=True)
class _Zero:
    """What a perfect generator's images score on average, before it is subtracted."""

    null: Null | None
    """None where the tiles are of too few scenes."""
    mean_log: float


def real_reference(
    real: NDArray[np.uint8], scenes: Sequence[Hashable], seed: int = 0
) -> RealReference:
    """The reference of real tiles (N, H, W) uint8 of these scenes, to score images against.

    Constant tiles, as of calm water, have no speckle and are left out.

    Raises:
        DataError: too few tiles, one that cannot be measured, or scenes that are not one a tile.
    """
    if len(scenes) != len(real):
        raise DataError(f"{len(scenes)} scenes named for {len(real)} real tiles: name one each")
    held = [n for n, tile in enumerate(real) if tile.min() < tile.max()]
    if len(held) < len(real):
        log.warning("%d of %d real tiles are constant", len(real) - len(held), len(real))
    if len(held) < 2 * MIN_TILES:
        raise DataError(
            f"{len(held)} real tiles are too few to judge images; at least {2 * MIN_TILES}, some "
            "hundred are better: set other train.judge.splits, or train without train.judge"
        )
    reference = _measured("real tiles", real[held])
    of = tuple(scenes[place] for place in held)
    return RealReference(real.shape[1:], reference, of, seed)


def score_images(images: NDArray[np.uint8], to: RealReference) -> dict[str, float]:
    """Every distance of images (N, H, W) uint8 to the real tiles, and the `score` of all.

    The score is the mean over `SCORED` of ln(distance), less the mean of the same over draws of N
    real tiles against others of other scenes: a perfect generator's averages 0, and lower is
    better. Real tiles of too few scenes, or too few, have no such draws: nothing is subtracted
    then, and scores only order images that are equally many.

    Raises:
        DataError: too few images, one that cannot be measured, as it is constant, or of another
            size than the tiles.
    """
    if len(images) < MIN_TILES or images.shape[1:] != to.shape:
        raise DataError(
            f"images {images.shape} cannot be compared with real tiles {to.shape}: generate "
            f"{MIN_TILES} or more (train.validation_prompts times train.validation_seeds), of the "
            "size of the tiles (train.image_px)"
        )
    found, zero = _measured("images", images), _zero(to, len(images))
    real = to.reference if zero.null is None else to.reference.subset(zero.null.reference)
    weights = uniform(found), uniform(real)
    try:
        raw = {
            name: distance(found, weights[0], real, weights[1])
            for name, (distance, *_) in DISTANCES.items()
        }
    except ValueError as error:
        raise DataError(f"images cannot be compared with real tiles: {error}") from error
    return {**raw, SCORE: mean_log(raw) - zero.mean_log}


def _measured(what: str, tiles: NDArray[np.uint8]) -> Features:
    try:
        return measure(tiles)
    except ValueError as error:
        raise DataError(f"{what} cannot be measured: {error}") from error


@functools.lru_cache(maxsize=4)
def _zero(to: RealReference, images: int) -> _Zero:
    try:
        null = draw_null(to.reference, to.scenes, images, seed=to.seed)
    except TooFewGroupsError as error:
        log.warning("scores have no zero and only order checkpoints: %s", error)
        return _Zero(None, 0.0)
    if null.groups_drawn < images:
        log.warning(
            "scores read low: %d images are held against tiles of %d scenes a draw, of %d in all",
            images, null.groups_drawn, null.groups,
        )  # fmt: skip
    values = np.stack([null.distances(DISTANCES[name][0]) for name in SCORED])
    return _Zero(null, float(np.log(np.maximum(values, LEAST)).mean()))
