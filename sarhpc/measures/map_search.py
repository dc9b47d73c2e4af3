"""Nearest neighbours among maps of the ground: exact products of blocks, then the best compared.

A map is projected onto its slowest cosines; the product with those of every other map is their
correlation (`MapIndex.shorten` leaves most of these out). A query is projected at every second
shift; the flip in azimuth changes the sign of cosines odd in azimuth and costs nothing. The best
candidates are then correlated where they overlap, to one cell. Whatever the blocks, threads and
order, the neighbours are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from sarhpc.measures.ground_maps import MAP_BYTES, SIDE, Maps, correlate, fisher, shifted
from sarhpc.measures.map_shortlist import LEAST_TILES, Shortlist

COSINES = 11
"""Cosines along each side of a map."""
CANDIDATES = 24
"""Best projections of which the maps are correlated."""
COHORT = 8
"""Maps next to the nearest, which say how near other maps come to a query."""
DESCRIPTOR_BYTES = 4 * COSINES * COSINES
BYTES_A_MAP = MAP_BYTES + DESCRIPTOR_BYTES
"""Memory for each map of an index, at most: those on disk are mapped, and may be evicted. One that
is shortened holds a descriptor more, and another one while its parts are made."""

_STEP = 2
_QUERIES, _BLOCK = 64, 4096
"""Products of a block, float32, stay in the second-level cache of a core."""

_BASIS = dct(np.eye(SIDE), axis=0, norm="ortho")[:COSINES].astype(np.float32)


@dataclass(frozen=True)
class Neighbours:
    """The nearest map of each query."""

    number: NDArray[np.int64]
    """Of the map in the index; -1 where none is allowed."""
    similarity: NDArray[np.float64]
    """`ground_maps.correlate` at the best shift and flip; -1 without a neighbour."""
    cohort: NDArray[np.float64]
    """Mean Fisher z of the similarity of the next eight; 0 for fewer."""
    flipped: NDArray[np.bool_]
    shift: NDArray[np.int16]
    """(N, 2) cells along rows and columns by which the query was moved."""


class MapIndex:
    """Maps to be searched.

    Args:
        maps: (N, 32, 32) from `ground_map`; may be mapped from disk.
        most_shift: cells, see `most_shift_cells`.
        groups: (N,) group of each as a number; queries of the same group do not find it.
    """

    def __init__(
        self, maps: Maps, most_shift: int, groups: NDArray[np.int64] | None = None
    ) -> None:
        self.maps, self._groups = maps, groups
        self.most_shift = most_shift
        even, odd = zip(*(_halves(_projected(part)) for part in _in_parts(maps)), strict=True)
        self._even, self._odd = np.concatenate(even), np.concatenate(odd)
        self._shortlist: Shortlist | None = None

    def shorten(self, seed: int = 0) -> None:
        """Look for candidates in the parts of an inverted file from now on; see `map_shortlist`.

        Queries of which a group is left out are still compared with all maps, and so are all
        queries where there are few maps.
        """
        if len(self) >= LEAST_TILES:
            self._shortlist = Shortlist(np.concatenate([self._even, self._odd], axis=1), seed)

    @property
    def is_shortened(self) -> bool:
        """Whether candidates are looked for in some parts only."""
        return self._shortlist is not None

    def __len__(self) -> int:
        return len(self.maps)

    def nearest(
        self,
        queries: Maps,
        groups: NDArray[np.int64] | None = None,
        own: NDArray[np.int64] | None = None,
        workers: int = 1,
    ) -> Neighbours:
        """The nearest neighbour of each query.

        Args:
            queries: maps (Q, 32, 32).
            groups: (Q,) group of each, whose maps are left out; None leaves out none.
            own: (Q,) number of each in the index, which is left out; -1 for none.
            workers: threads.
        """
        starts = range(0, len(queries), _QUERIES)

        def found(start: int) -> Neighbours:
            """Neighbours of the block of queries that starts here."""
            part = slice(start, start + _QUERIES)
            return self._of_block(
                np.asarray(queries[part], np.float32),
                None if groups is None else groups[part],
                None if own is None else own[part],
            )

        if workers < 2:
            return _joined([found(start) for start in starts])
        with ThreadPoolExecutor(workers) as pool:
            return _joined(list(pool.map(found, starts)))

    def _of_block(
        self, queries: Maps, groups: NDArray[np.int64] | None, own: NDArray[np.int64] | None
    ) -> Neighbours:
        offsets = _offsets(self.most_shift)
        views = [_halves(_projected(shifted(queries, *by))) for by in offsets]
        if self._shortlist is None or groups is not None:
            best, chosen = self._candidates(views, groups, own)
        else:
            both = [np.concatenate([e, sign * o], axis=1) for e, o in views for sign in (1, -1)]
            best, chosen = self._shortlist.best(both, CANDIDATES)
            if own is not None:
                best[chosen == own[:, None]] = -np.inf
        pairs = np.argwhere(np.isfinite(best))
        query, number = pairs[:, 0], chosen[pairs[:, 0], pairs[:, 1]]
        even = np.stack([np.einsum("pd,pd->p", e[query], self._even[number]) for e, _ in views])
        odd = np.stack([np.einsum("pd,pd->p", o[query], self._odd[number]) for _, o in views])
        view = np.argmax(even + np.abs(odd), axis=0)
        flip = odd[view, np.arange(len(pairs))] < 0
        ones = np.where(flip[:, None, None], queries[query, ::-1], queries[query])
        others = np.asarray(self.maps[number], np.float32)
        # A view of the flipped query is the flip of a moved one: its rows move the other way.
        base = np.array(offsets)[view] * np.where(flip, -1, 1)[:, None] ** [[1, 0]]
        similarity, shift = _refined(ones, others, base, self.most_shift)
        return _best_of(len(queries), query, number, similarity, flip, shift)

    def _candidates(
        self,
        views: Sequence[tuple[Maps, Maps]],
        groups: NDArray[np.int64] | None,
        own: NDArray[np.int64] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Score (Q, k) and number (Q, k) of the best projections; -inf where there are fewer."""
        count = len(views[0][0])
        best = np.full((count, 0), -np.inf, np.float32)
        chosen = np.zeros((count, 0), np.int64)
        for start in range(0, len(self), _BLOCK):
            part = slice(start, start + _BLOCK)
            score = _scores(views, self._even[part], self._odd[part])
            if groups is not None and self._groups is not None:
                score[groups[:, None] == self._groups[None, part]] = -np.inf
            if own is not None:
                inside = np.flatnonzero((own >= start) & (own < start + score.shape[1]))
                score[inside, own[inside] - start] = -np.inf
            numbers = np.broadcast_to(np.arange(start, start + score.shape[1]), score.shape)
            best, chosen = _top(
                np.concatenate([best, score], axis=1), np.concatenate([chosen, numbers], axis=1)
            )
        return best, chosen


def _scores(views: Sequence[tuple[Maps, Maps]], even: Maps, odd: Maps) -> NDArray[np.float32]:
    """Best correlation (Q, N) over shifts and flips."""
    score = np.full((len(views[0][0]), len(even)), -np.inf, np.float32)
    e, o = np.empty_like(score), np.empty_like(score)
    for one, other in views:
        np.matmul(one, even.T, out=e)
        np.matmul(other, odd.T, out=o)
        np.abs(o, out=o)
        np.add(e, o, out=e)
        np.maximum(score, e, out=score)
    return score


def _top(
    score: NDArray[np.float32], number: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if score.shape[1] <= CANDIDATES:
        return score, number
    place = np.argpartition(-score, CANDIDATES - 1, axis=1)[:, :CANDIDATES]
    return np.take_along_axis(score, place, 1), np.take_along_axis(number, place, 1)


def _offsets(most: int) -> list[tuple[int, int]]:
    line = range(-(most // _STEP) * _STEP, most + 1, _STEP)
    return [(row, column) for row in line for column in line]


def _projected(maps: Maps) -> NDArray[np.float32]:
    """Cosines (N, 11, 11) of maps, of unit norm, those of rows first; zeros stay zeros."""
    found = np.matmul(np.matmul(_BASIS, np.asarray(maps, np.float32)), _BASIS.T)
    found[:, 0, 0] = 0
    norm = np.sqrt(np.einsum("nij,nij->n", found, found))
    return np.asarray(found / np.maximum(norm, 1e-6)[:, None, None], np.float32)


def descriptors(maps: Maps) -> NDArray[np.float32]:
    """Descriptors (N, 121) of unit norm, whose products are correlations without a shift."""
    return _projected(maps).reshape(len(maps), -1)


def _halves(projected: NDArray[np.float32]) -> tuple[Maps, Maps]:
    """Cosines even and odd in azimuth."""
    even, odd = projected[:, 0::2], projected[:, 1::2]
    return (
        np.ascontiguousarray(even.reshape(len(even), -1)),
        np.ascontiguousarray(odd.reshape(len(odd), -1)),
    )


def _in_parts(maps: Maps) -> Iterator[Maps]:
    for start in range(0, len(maps), _BLOCK):
        yield maps[start : start + _BLOCK]


def _refined(
    ones: Maps, others: Maps, base: NDArray[Any], most: int
) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    """Best similarity of pairs within a cell of the shift of each, and between cells."""
    found = np.full((len(ones), 3, 3), np.nan)
    for row, column in np.ndindex(3, 3):
        at = base + np.array([row - 1, column - 1])
        for by in np.unique(at, axis=0):
            if np.abs(by).max() > most:
                continue
            pairs = np.flatnonzero((at == by).all(axis=1))
            moved = correlate(ones[pairs], others[pairs], int(by[0]), int(by[1]))
            found[pairs, row, column] = moved
    flat = np.where(np.isnan(found), -1.0, found).reshape(len(ones), 9)
    place = np.argmax(flat, axis=1)
    each, row, column = np.arange(len(ones)), place // 3, place % 3
    peak = flat[each, place]
    above, below = np.maximum(row - 1, 0), np.minimum(row + 1, 2)
    left, right = np.maximum(column - 1, 0), np.minimum(column + 1, 2)
    gain = _beyond_sample(found[each, above, column], peak, found[each, below, column])
    gain += _beyond_sample(found[each, row, left], peak, found[each, row, right])
    shift = base + np.stack([row - 1, column - 1], axis=1)
    return np.minimum(peak + gain, 1.0), shift.astype(np.int16)


def _beyond_sample(
    before: NDArray[np.float64], peak: NDArray[np.float64], after: NDArray[np.float64]
) -> NDArray[np.float64]:
    """By how much the parabola through three values exceeds the middle one; 0 at an edge."""
    bend = 2 * peak - before - after
    rise = np.square(after - before) / np.maximum(8 * bend, 1e-9)
    inside = (before < peak) & (after < peak)
    return np.where(inside, rise, 0.0)


def _best_of(
    count: int,
    query: NDArray[np.int64],
    number: NDArray[np.int64],
    similarity: NDArray[np.float64],
    flip: NDArray[np.bool_],
    shift: NDArray[np.int16],
) -> Neighbours:
    """The best pair of each query, by similarity and then by number: pairs come in no order."""
    found = Neighbours(
        np.full(count, -1, np.int64),
        np.full(count, -1.0),
        np.zeros(count),
        np.zeros(count, np.bool_),
        np.zeros((count, 2), np.int16),
    )
    order = np.lexsort((number, -similarity, query))
    first = np.searchsorted(query[order], np.arange(count + 1))
    for one, (start, end) in enumerate(itertools.pairwise(first)):
        pairs = order[start:end]
        if not pairs.size:
            continue
        best, others = pairs[0], pairs[1 : COHORT + 1]
        found.number[one], found.similarity[one] = number[best], similarity[best]
        found.flipped[one], found.shift[one] = flip[best], shift[best]
        if len(others) == COHORT:
            found.cohort[one] = fisher(similarity[others]).mean()
    return found


def _joined(parts: Sequence[Neighbours]) -> Neighbours:
    if not parts:
        none = np.zeros(0, np.int64)
        return _best_of(0, none, none, np.zeros(0), none > 0, np.zeros((0, 2), np.int16))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Neighbours(*(np.concatenate(column) for column in columns))
