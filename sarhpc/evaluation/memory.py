"""E11 of a corpus: images that repeat training tiles or each other, and how varied they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.map_tables import MappedTiles
from sarhpc.measures.ground_maps import MAP_BYTES, SIDE, even_db
from sarhpc.measures.map_search import BYTES_A_MAP, DESCRIPTOR_BYTES, MapIndex, Neighbours
from sarhpc.measures.memorisation import (
    MOST_NULL,
    SURELY_NEAR,
    CopyLimit,
    distance,
    group_numbers,
    limit_of_index,
    share_interval,
    vendi_score,
)
from sarhpc.shards.subset import spread

MOST_WITHIN = 100_000
"""Images of a corpus that its images are compared with, evenly from first to last."""
_NAMES_BYTES = 300
"""Key, place and group of a tile."""


@dataclass(frozen=True)
class Asked:
    """How copies are looked for."""

    rate: float
    """Share of other images that may be taken for copies."""
    most_shift: int
    """Cells."""
    cell_px: tuple[float, float]
    """Rows and columns of a cell, px."""
    pairs: int
    """Most suspicious pairs to list."""
    workers: int = 1
    approximate: bool = False
    """Whether images are compared with some of many tiles only; the limit never is."""


@dataclass(frozen=True)
class Copies:
    """The result: plain values, and the images of the most suspicious pairs."""

    block: Mapping[str, Any]
    pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]]
    """File and row of an image and of its nearest training tile."""


class NoLimitError(ValueError):
    """There is no limit on copies, and why."""


def memory_bytes(training: int, images: int, approximate: bool = False) -> int:
    """Memory that the search takes, bytes: maps of all, projections of those searched, names."""
    searched = training + min(images, MOST_WITHIN)
    a_map = BYTES_A_MAP + 2 * DESCRIPTOR_BYTES * approximate
    return searched * a_map + (training + images) * (MAP_BYTES + _NAMES_BYTES)


def find_copies(
    corpus: MappedTiles, training: MappedTiles, held_out: MappedTiles | None, asked: Asked
) -> Copies:
    """What of a corpus repeats the training tiles.

    Args:
        corpus: its images.
        training: tiles that the model was trained on.
        held_out: real tiles of other scenes, which show how many are taken for copies by chance.
        asked: rate and sizes.

    Raises:
        NoLimitError: there are too few training tiles, or of too few scenes.
    """
    groups = group_numbers(training.groups)
    if len(training) < 2 or groups.max() < 1:
        raise NoLimitError(
            f"{len(training)} training tiles are of {len({*training.groups})} scene: a limit "
            "needs tiles of other scenes"
        )
    index = MapIndex(training.maps, asked.most_shift, groups)
    try:
        limit = limit_of_index(index, training.groups, asked.workers)
    except ValueError as error:
        raise NoLimitError(str(error)) from error
    if asked.approximate:
        index.shorten()
    found = index.nearest(corpus.maps, workers=asked.workers)
    evidence = limit.evidence(found)
    least = limit.at(asked.rate)
    ratio = _ratios(found, index, training, groups, asked)
    worst = np.argsort(-evidence, kind="stable")[: asked.pairs]
    block = {
        "images": len(corpus),
        "not_measured": corpus.faults,
        "training_tiles": len(training),
        "training_groups": int(groups.max()) + 1,
        "false_alarms": asked.rate,
        "approximate": index.is_shortened,
        "limit": least,
        "calibration": limit.to_json(),
        "memorised": _share(evidence > least),
        "nearer_than_a_third": _share(ratio < SURELY_NEAR),
        "held_out": _control(held_out, index, limit, least, asked),
        "even": _even(corpus, asked),
        "within": _within(corpus, limit, asked),
        "diversity": _diversity(corpus, training),
        "pairs": [
            _pair(corpus, training, found, evidence, ratio, int(one), least, asked) for one in worst
        ],
    }
    places = [(corpus.places[one], training.places[found.number[one]]) for one in worst]
    return Copies(block, places)


def _share(flagged: NDArray[np.bool_]) -> dict[str, Any]:
    count, of = int(flagged.sum()), len(flagged)
    low, high = share_interval(count, of)
    return {"count": count, "of": of, "share": count / of if of else 0.0, "low": low, "high": high}


def _even(corpus: MappedTiles, asked: Asked) -> dict[str, Any] | None:
    """Images of so even ground that a copy differs from others in little but speckle."""
    if not len(corpus) or np.isnan(corpus.details).any():
        return None
    below = even_db((round(asked.cell_px[0] * SIDE), round(asked.cell_px[1] * SIDE)))
    return {**_share(corpus.details < below), "below_db": below}


def _ratios(
    found: Neighbours,
    index: MapIndex,
    training: MappedTiles,
    groups: NDArray[np.int64],
    asked: Asked,
) -> NDArray[np.float64]:
    """Distance to the nearest training tile over that of this tile to its nearest; else infinity.

    Only where it can be below a third: distances of two tiles are at most the root of two, unless
    they are opposites.
    """
    ratio = np.full(len(found.number), np.inf)
    near = np.flatnonzero(distance(found.similarity) < SURELY_NEAR * np.sqrt(2))
    tiles, place = np.unique(found.number[near], return_inverse=True)
    if tiles.size:
        others = index.nearest(training.maps[tiles], groups=groups[tiles], workers=asked.workers)
        apart = np.maximum(distance(others.similarity), 1e-9)
        ratio[near] = distance(found.similarity[near]) / apart[place]
    return ratio


def _control(
    held_out: MappedTiles | None, index: MapIndex, limit: CopyLimit, least: float, asked: Asked
) -> dict[str, Any] | None:
    if held_out is None or not len(held_out):
        return None
    found = index.nearest(held_out.maps, workers=asked.workers)
    return _share(limit.evidence(found) > least)


def _within(corpus: MappedTiles, limit: CopyLimit, asked: Asked) -> dict[str, Any] | None:
    """Images that repeat another one of the corpus."""
    count = len(corpus)
    if count < 2:
        return None
    maps = corpus.maps[spread(range(count), MOST_WITHIN)]
    most = len(maps)
    index = MapIndex(maps, asked.most_shift)
    if asked.approximate:
        index.shorten()
    found = index.nearest(maps, own=np.arange(most), workers=asked.workers)
    least = limit.at(asked.rate, most)
    return {**_share(limit.evidence(found) > least), "limit": least, "compared": most}


def _diversity(corpus: MappedTiles, training: MappedTiles) -> dict[str, Any]:
    """Vendi score, and similarity to the nearest, of as many images and training tiles."""
    count = min(len(corpus), len(training), MOST_NULL)
    values: dict[str, Any] = {"tiles": count}
    for name, of in (("corpus", corpus), ("training", training)):
        maps = of.maps[spread(range(len(of)), count)]
        found = MapIndex(maps, 0).nearest(maps, own=np.arange(count))
        values[name] = {
            "vendi": vendi_score(maps),
            "mean_distance_to_nearest": float(distance(found.similarity).mean()),
        }
    return values


def _pair(
    corpus: MappedTiles,
    training: MappedTiles,
    found: Neighbours,
    evidence: NDArray[np.float64],
    ratio: NDArray[np.float64],
    one: int,
    least: float,
    asked: Asked,
) -> dict[str, Any]:
    number = int(found.number[one])
    shift = [int(s) * px for s, px in zip(found.shift[one], asked.cell_px, strict=True)]
    return {
        "key": corpus.keys[one],
        "nearest": training.keys[number],
        "scene": training.groups[number],
        "similarity": float(found.similarity[one]),
        "evidence": float(evidence[one]),
        "copy": bool(evidence[one] > least),
        "ratio": float(ratio[one]) if np.isfinite(ratio[one]) else None,
        "flipped": bool(found.flipped[one]),
        "shift_px": shift,
    }
