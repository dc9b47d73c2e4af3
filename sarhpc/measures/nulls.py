"""Distances between real tiles and real tiles, against which a distance to synthetic tiles is held.

For N tiles compared with M real ones, a draw parts the groups of the real tiles (flight lines, else
scenes) at random: N tiles come from some groups and M from the others, each as evenly over its
groups as their sizes allow. Neighbours never stand on both sides, both sides have the sizes of the
comparison, and so its distance is one more draw if the generator is perfect.

A generator makes every image anew, as if of a scene of its own. So the N tiles of a draw come from
N groups wherever half of all groups suffice; `Null.groups_drawn` says how many they are. With fewer
the null is wider than the distances of a perfect generator: p-values are then too large.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.distances import Distance, Weights, uniform
from sarhpc.measures.features import Features

Labels = Sequence[Hashable]
"""Group of each tile."""
Indices = NDArray[np.int64]

LEAST_GROUPS = 8
"""Fewest groups whose halves differ enough from draw to draw: 70 ways to part 8."""
DRAWS = 199
"""With 199 draws p-values are multiples of 1/200."""


class TooFewGroupsError(ValueError):
    """The real tiles are of too few groups, or too few, for a null of this size."""


@dataclass(frozen=True)
class Null:
    """Draws of N real tiles against M others, as weights of all real tiles."""

    features: Features
    """Of all T real tiles."""
    tiles: int
    """N, as many as the tiles that are compared."""
    reference_tiles: int
    """M."""
    groups_drawn: int
    """Groups of which the N tiles of a draw are; fewer than N make p-values too large."""
    groups: int
    drawn: NDArray[np.float64]
    """(draws, T) weights of the N tiles."""
    others: NDArray[np.float64]
    """(draws, T) weights of the M tiles."""
    reference: Indices
    """The M tiles that others are compared with: those of one more draw."""
    counterpart: Indices
    """The N tiles of the same draw: copies of these are held against the reference."""
    labels: NDArray[np.int64]
    """(T,) number of the group of each tile."""

    def distances(self, distance: Distance) -> NDArray[np.float64]:
        """A distance of every draw."""
        return np.array(
            [
                distance(self.features, ours, self.features, theirs)
                for ours, theirs in zip(self.drawn, self.others, strict=True)
            ]
        )

    def against(self, features: Features, distance: Distance) -> float:
        """The same distance of N tiles to the M reference tiles."""
        real = self.features.subset(self.reference)
        return distance(features, uniform(features), real, uniform(real))


@dataclass(frozen=True)
class Verdict:
    """A distance, and how it stands in its null."""

    raw: float
    low: float
    """Lower end of the 95 % bootstrap interval of `raw`, over groups of both sides."""
    high: float
    null_median: float
    null_95: float
    """95 % of the draws lie below."""
    log_ratio: float
    """ln(raw) less the mean of ln over the null; its mean is 0 for a perfect generator."""
    p_value: float
    """(1 + draws of `raw` or more) / (1 + draws)."""
    tiles: int
    reference_tiles: int
    groups: int
    groups_drawn: int


@dataclass(frozen=True)
class NoVerdict:
    """A distance without a null: it cannot be said whether it is large."""

    raw: float
    reason: str


def draw_null(
    features: Features,
    groups: Labels,
    tiles: int,
    reference_tiles: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Null:
    """Draws of `tiles` real tiles against others, of other groups.

    Args:
        features: of T real tiles.
        groups: flight line or else scene of each.
        tiles: N, as many as the tiles that are to be compared.
        reference_tiles: M; without it, as many as are left in every draw.
        draws: how many.
        seed: of the draws.

    Raises:
        TooFewGroupsError: fewer than 8 groups, or not N tiles in half of them and M in the others.
        ValueError: labels that are not one a tile, or sizes below 1.
    """
    if len(groups) != len(features):
        raise ValueError(
            f"{len(groups)} group labels for {len(features)} real tiles: give one each"
        )
    if tiles < 1 or draws < 1 or (reference_tiles is not None and reference_tiles < 1):
        raise ValueError("tiles, reference_tiles and draws: give at least 1")
    labels = _numbered(groups)
    sizes = np.bincount(labels)
    count = _groups_to_draw(sizes, tiles)
    left = int(np.sort(sizes)[: sizes.size - count].sum())
    wanted = left if reference_tiles is None else reference_tiles
    if wanted > left:
        raise TooFewGroupsError(
            f"{tiles} tiles of {count} of {sizes.size} groups leave {left} tiles of the "
            f"others in some draws, and not the {wanted} of the reference: give more real tiles, "
            "or compare with fewer"
        )
    rng = np.random.default_rng([seed, tiles, wanted])
    total = len(features)
    drawn, others = np.zeros((draws, total)), np.zeros((draws, total))
    for draw in range(draws):
        ours, theirs = _part(labels, count, tiles, wanted, rng)
        drawn[draw, ours], others[draw, theirs] = 1.0 / tiles, 1.0 / wanted
    counterpart, reference = (np.sort(side) for side in _part(labels, count, tiles, wanted, rng))
    return Null(
        features, tiles, wanted, count, sizes.size, drawn, others, reference, counterpart, labels
    )


def most_tiles(groups: Labels) -> int:
    """Most tiles that can be compared with as many real tiles of these groups; 0 if too few groups.

    Of more synthetic tiles compare so many.
    """
    sizes = np.sort(np.bincount(_numbered(groups))) if len(groups) else np.zeros(0, np.int64)
    if sizes.size < LEAST_GROUPS:
        return 0
    half = sizes.size // 2
    # The half that is drawn may be the smallest groups, and may leave all but the largest.
    return int(min(sizes[:half].sum(), sizes[: sizes.size - half].sum()))


def _numbered(groups: Labels) -> NDArray[np.int64]:
    """(T,) number of the group of each tile, in the order in which groups appear."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)


def _groups_to_draw(sizes: Indices, tiles: int) -> int:
    """Groups of the N tiles: N, or half of all where those are fewer."""
    if sizes.size < LEAST_GROUPS:
        raise TooFewGroupsError(
            f"the real tiles are of {sizes.size} scenes or flight lines; a null needs "
            f"{LEAST_GROUPS}: give tiles of more scenes"
        )
    count = min(tiles, sizes.size // 2)
    least = int(np.sort(sizes)[:count].sum())
    if least < tiles:
        raise TooFewGroupsError(
            f"half of the {sizes.size} groups of the real tiles may hold {least} tiles, "
            f"fewer than the {tiles} that are compared: give more real tiles, or compare fewer"
        )
    return count


def _part(
    labels: Indices, count: int, tiles: int, others: int, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """`tiles` of `count` random groups, and `others` of the other groups."""
    ours = rng.permutation(int(labels.max()) + 1)[labels] < count
    return (
        _evenly(labels, np.flatnonzero(ours), tiles, rng),
        _evenly(labels, np.flatnonzero(~ours), others, rng),
    )


def evenly_over_groups(groups: Labels, tiles: int, seed: int = 0) -> Indices:
    """Numbers of `tiles` tiles, in order, as evenly over groups as possible.

    Every group gives as many tiles as every other, or all that it has; all tiles are taken where
    there are no more.

    Raises:
        ValueError: `tiles` below 1.
    """
    if tiles < 1:
        raise ValueError(f"tiles={tiles}: give at least 1")
    rng = np.random.default_rng(seed)
    return np.sort(_evenly(_numbered(groups), np.arange(len(groups)), tiles, rng))


def _evenly(labels: Indices, among: Indices, tiles: int, rng: np.random.Generator) -> Indices:
    """Tiles of every group in turn, random within it, until there are enough."""
    order = among[np.lexsort((rng.random(among.size), labels[among]))]
    start = np.flatnonzero(np.diff(labels[order], prepend=-1))
    turn = np.arange(order.size) - np.repeat(start, np.diff(start, append=order.size))
    # Which groups give to the last, incomplete turn is random.
    return order[np.lexsort((rng.random(order.size), turn))[:tiles]]


def judge(
    features: Features, distance: Distance, null: Null, bootstrap: int = 200, seed: int = 0
) -> Verdict:
    """A distance of N tiles to real ones, and how it stands in its null.

    Args:
        features: of N tiles, each made anew.
        distance: any of `DISTANCES`.
        null: draws of the same N.
        bootstrap: resamplings behind the interval: of the N tiles, and of the reference's groups.
        seed: of the resamplings.

    Raises:
        ValueError: another number of tiles than the null's, or a distance that is not finite.
    """
    if len(features) != null.tiles:
        raise ValueError(
            f"{len(features)} tiles against a null of {null.tiles}: distances depend on the number "
            "of tiles; draw the null for as many as there are"
        )
    raw, values = null.against(features, distance), null.distances(distance)
    if not (np.isfinite(raw) and np.isfinite(values).all()):
        raise ValueError("a distance is not finite: a tile has pixels that are not, or is constant")
    low, high = np.percentile(_resampled(features, distance, null, bootstrap, seed), [2.5, 97.5])
    return Verdict(
        raw=raw,
        low=float(low),
        high=float(high),
        null_median=float(np.median(values)),
        null_95=float(np.percentile(values, 95)),
        log_ratio=log_ratio(raw, values),
        p_value=float((1 + (values >= raw).sum()) / (1 + values.size)),
        tiles=null.tiles,
        reference_tiles=null.reference_tiles,
        groups=null.groups,
        groups_drawn=null.groups_drawn,
    )


def verdicts(
    features: Features,
    real: Features,
    groups: Labels,
    distances: Mapping[str, Distance],
    draws: int = DRAWS,
    bootstrap: int = 200,
    seed: int = 0,
    copies: bool = False,
) -> dict[str, Verdict | NoVerdict]:
    """Each distance of tiles to real ones, with its verdict, or with the reason why there is none.

    Of more tiles than there is a null for (`most_tiles`), that many are compared, evenly spread.

    Args:
        features: of the tiles that are judged.
        real: of the real tiles.
        groups: flight line or else scene of each real tile.
        distances: by name.
        draws: of the null.
        bootstrap: resamplings behind each interval.
        seed: of draws and resamplings.
        copies: the tiles are copies of the real ones, in their order. Copies of tiles of some
            groups are then compared with real tiles of the others, as the draws are.

    Raises:
        ValueError: no tiles, labels that are not one a real tile, copies of another number than
            the real tiles, or a distance that is not finite.
    """
    if copies and len(features) != len(real):
        raise ValueError(f"{len(features)} copies of {len(real)} real tiles: give one of each")
    count = min(len(features), most_tiles(groups) or len(features))
    try:
        null = draw_null(real, groups, count, draws=draws, seed=seed)
    except TooFewGroupsError as error:
        return without_verdict(features, real, distances, str(error))
    places = np.linspace(0, len(features) - 1, count).round().astype(np.int64)
    judged = features.subset(null.counterpart if copies else places)
    return {
        name: judge(judged, distance, null, bootstrap, seed) for name, distance in distances.items()
    }


def without_verdict(
    features: Features, real: Features, distances: Mapping[str, Distance], reason: str
) -> dict[str, Verdict | NoVerdict]:
    """Each distance of all tiles to all real ones, and why it has no verdict."""
    weights = uniform(features), uniform(real)
    return {
        name: NoVerdict(distance(features, weights[0], real, weights[1]), reason)
        for name, distance in distances.items()
    }


def log_ratio(raw: float, null: NDArray[np.float64]) -> float:
    """ln(raw) less the mean of ln over the null draws; 0 on average for a perfect generator.

    The mean of ln(raw / null median) is no zero: for the size of a normal difference, as of two
    mean levels, it is -0.24 by itself. A distance of 0 counts as 1/1000 of the null's median.
    """
    least = max(float(np.median(null)) * 1e-3, 1e-12)
    return float(np.log(max(raw, least)) - np.log(np.maximum(null, least)).mean())


def _resampled(
    features: Features, distance: Distance, null: Null, bootstrap: int, seed: int
) -> NDArray[np.float64]:
    rng = np.random.default_rng([seed, 1])
    n = len(features)
    real = null.features.subset(null.reference)
    _, label = np.unique(null.labels[null.reference], return_inverse=True)
    count = int(label.max()) + 1
    values = []
    for _ in range(bootstrap):
        ours: Weights = rng.multinomial(n, np.full(n, 1.0 / n)) / n
        times = rng.multinomial(count, np.full(count, 1.0 / count))[label].astype(np.float64)
        values.append(distance(features, ours, real, times / times.sum()))
    return np.array(values)
