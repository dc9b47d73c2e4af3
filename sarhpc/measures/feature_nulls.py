"""E9: a set of feature vectors against as many real ones, and real ones against real ones.

Sizes never differ: N vectors of a set are compared with N real ones, and each draw of the null
compares N real ones with N others of other groups (see `nulls`). The distances grow as sets get
smaller, so that values of other N do not compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.feature_distances import (
    NEIGHBOURS,
    Vectors,
    cubic_kernel,
    frechet,
    kernel_distance,
    shares,
    squared_distances,
)
from sarhpc.measures.features import Features
from sarhpc.measures.nulls import DRAWS, Labels, NoVerdict, TooFewGroupsError, draw_null, most_tiles

Indices = NDArray[np.int64]

FRECHET, KERNEL = "frechet", "kernel"
SHARES = ("precision", "recall", "coverage")
"""Measures of which more is better."""
ALL = (FRECHET, KERNEL, *SHARES)

Reference = Callable[[Vectors, Vectors], Mapping[str, float]]
"""Values of some measures of generated and real vectors by another implementation."""


@dataclass(frozen=True)
class FeatureVerdict:
    """A measure of two clouds, and how it stands among real ones against real ones."""

    raw: float
    null_median: float
    null_95: float
    """95 % of the draws agree better: their distances are smaller, their shares larger."""
    null_deviation: float
    """Standard deviation of the draws."""
    p_value: float
    """(1 + draws that agree as badly, or worse) / (1 + draws)."""
    tiles: int
    """N, of each side."""
    groups: int
    groups_drawn: int


@dataclass(frozen=True)
class NoNumber:
    """A measure that these sets do not have, and why."""

    reason: str


Found = FeatureVerdict | NoVerdict | NoNumber


@dataclass(frozen=True)
class Pairing:
    """Which N real vectors stand for the real set, and which against which in each draw."""

    tiles: int
    reference: Indices
    draws: tuple[tuple[Indices, Indices], ...]
    groups: int = 0
    groups_drawn: int = 0
    reason: str = ""
    """Why there are no draws."""


def pair(real: Features, groups: Labels | None, count: int, seed: int = 0) -> Pairing:
    """The pairing for a set of `count` vectors; of as many of them as real ones can face.

    Args:
        real: of the real tiles.
        groups: flight line or else scene of each; None where they are not known.
        count: vectors of the set.
        seed: of the draws.
    """
    reason = "the scenes of the real tiles are not known, so that there is no null"
    if groups is not None:
        tiles = min(count, most_tiles(groups) or count)
        try:
            null = draw_null(real, groups, tiles, tiles, DRAWS, seed)
        except TooFewGroupsError as error:
            reason = str(error)
        else:
            draws = tuple(
                (np.flatnonzero(ours), np.flatnonzero(theirs))
                for ours, theirs in zip(null.drawn, null.others, strict=True)
            )
            return Pairing(tiles, null.reference, draws, null.groups, null.groups_drawn)
    tiles = min(count, len(real))
    return Pairing(tiles, evenly(len(real), tiles), (), reason=reason)


def evenly(count: int, wanted: int) -> Indices:
    """Numbers of `wanted` of `count` vectors, evenly from first to last."""
    return np.linspace(0, count - 1, wanted).round().astype(np.int64)


def judge_vectors(
    generated: Vectors,
    real: Vectors,
    pairing: Pairing,
    measures: tuple[str, ...] = ALL,
    neighbours: int = NEIGHBOURS,
    reference: Reference | None = None,
) -> dict[str, Found]:
    """Each of `measures` of generated vectors against real ones, with its null.

    Args:
        generated: (N, d) vectors of the set, as many as the pairing has.
        real: (T, d) vectors of all real tiles.
        pairing: from `pair`, of the same real tiles.
        measures: of `ALL`.
        neighbours: whose distance is a radius, for shares.
        reference: another implementation whose values are reported where it has them.

    Raises:
        ValueError: another number of vectors than the pairing's, or one that is not finite.
    """
    if len(generated) != pairing.tiles:
        raise ValueError(
            f"{len(generated)} vectors against a pairing of {pairing.tiles}: sizes must agree"
        )
    if not (np.isfinite(generated).all() and np.isfinite(real).all()):
        raise ValueError("a feature vector is not finite")
    theirs = real[pairing.reference]
    values = dict(_measured(generated, theirs, measures, neighbours))
    known = [name for name, value in values.items() if isinstance(value, float)]
    if reference is not None:
        values |= {n: v for n, v in reference(generated, theirs).items() if n in known}
    drawn = _drawn(real, pairing, tuple(known), neighbours)
    return {
        name: NoNumber(value) if isinstance(value, str) else _verdict(value, name, drawn, pairing)
        for name, value in values.items()
    }


def _measured(
    x: Vectors, y: Vectors, measures: tuple[str, ...], neighbours: int
) -> Iterator[tuple[str, float | str]]:
    products = x @ x.T, x @ y.T, y @ y.T
    for name in (FRECHET, KERNEL):
        if name in measures:
            try:
                value = frechet(x, y) if name == FRECHET else _kernel(products, x.shape[1])
                yield name, value
            except ValueError as error:
                yield name, str(error)
    yield from _shares(products, measures, neighbours)


def _kernel(products: tuple[Vectors, Vectors, Vectors], width: int) -> float:
    return kernel_distance(*(cubic_kernel(one, width) for one in products))


def _shares(
    products: tuple[Vectors, Vectors, Vectors], measures: tuple[str, ...], neighbours: int
) -> Iterator[tuple[str, float | str]]:
    names = [name for name in SHARES if name in measures]
    if not names:
        return
    xx, xy, yy = products
    x, y = np.diagonal(xx), np.diagonal(yy)
    generated, across = squared_distances(xx, x, x), squared_distances(xy, x, y)
    try:
        found = shares(generated, across, squared_distances(yy, y, y), neighbours)
    except ValueError as error:
        yield from ((name, str(error)) for name in names)
    else:
        yield from ((name, getattr(found, name)) for name in names)


def _drawn(
    real: Vectors, pairing: Pairing, measures: tuple[str, ...], neighbours: int
) -> dict[str, NDArray[np.float64]]:
    """Values of each draw; inner products of all real vectors are computed once."""
    products = real @ real.T if pairing.draws else np.zeros((0, 0))
    values: dict[str, list[float]] = {name: [] for name in measures}
    for ours, theirs in pairing.draws:
        blocks = (
            products[np.ix_(ours, ours)],
            products[np.ix_(ours, theirs)],
            products[np.ix_(theirs, theirs)],
        )
        if FRECHET in measures:
            values[FRECHET].append(frechet(real[ours], real[theirs]))
        if KERNEL in measures:
            values[KERNEL].append(_kernel(blocks, real.shape[1]))
        for name, value in _shares(blocks, measures, neighbours):
            values[name].append(float(value))
    return {name: np.array(found) for name, found in values.items()}


def _verdict(
    raw: float, name: str, drawn: Mapping[str, NDArray[np.float64]], pairing: Pairing
) -> Found:
    values = drawn[name]
    if not values.size:
        return NoVerdict(raw, pairing.reason)
    worse = values <= raw if name in SHARES else values >= raw
    return FeatureVerdict(
        raw=raw,
        null_median=float(np.median(values)),
        null_95=float(np.percentile(values, 5 if name in SHARES else 95)),
        null_deviation=float(values.std(ddof=1)),
        p_value=float((1 + worse.sum()) / (1 + values.size)),
        tiles=pairing.tiles,
        groups=pairing.groups,
        groups_drawn=pairing.groups_drawn,
    )
