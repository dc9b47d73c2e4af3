"""Candidates by an inverted file: as the exact products find them, whatever blocks and threads."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from ground_tiles import tiles_and_copies

from sarhpc.measures.ground_maps import ground_map, shifted
from sarhpc.measures.map_search import MapIndex, Neighbours

pytestmark = pytest.mark.slow

MOST_SHIFT = 2


@functools.cache
def two_looks(count: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Maps of tiles of made-up ground, and of the same under other speckle."""
    tiles, copies = tiles_and_copies(count, most=0, seed=7)
    again = [copy[::-1] if number % 2 else copy for number, copy in enumerate(copies)]
    first, second = (np.stack([ground_map(one) for one in of]) for of in (tiles, again))
    return first.astype(np.float32), second.astype(np.float32)


def maps_and_copies(count: int, copies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps, each mixed of two; copies of some under other speckle, moved, half flipped; of which.

    Mixtures of a hundred maps and their rolled ones are as many different grounds as are wanted.
    """
    rng = np.random.default_rng(count)
    pairs, rolls = rng.integers(100, size=(count, 2)), rng.integers(32, size=(count, 2))
    of = rng.choice(count, copies, replace=False)
    maps = _mixed(two_looks()[0], pairs, rolls)
    moved = _mixed(two_looks()[1], pairs[of], rolls[of])
    for one, by in enumerate(rng.integers(-MOST_SHIFT, MOST_SHIFT + 1, (copies, 2))):
        moved[one] = shifted(moved[one][None], *by)[0][:: (-1) ** one]
    return maps, moved, of


def _mixed(maps: np.ndarray, pairs: np.ndarray, rolls: np.ndarray) -> np.ndarray:
    found = np.empty((len(pairs), 32, 32), np.float16)
    for number, ((one, other), by) in enumerate(zip(pairs, rolls, strict=True)):
        mixed = maps[one] + np.roll(maps[other], tuple(by), (0, 1))
        found[number] = (mixed - mixed.mean()) / mixed.std()
    return found


def compared(count: int, copies: int) -> tuple[Neighbours, Neighbours, np.ndarray]:
    """Neighbours by exact products and by the shortlist, and which tile each copy is of."""
    maps, queries, of = maps_and_copies(count, copies)
    index = MapIndex(maps, MOST_SHIFT)
    exact = index.nearest(queries)
    index.shorten()
    assert index.is_shortened
    return exact, index.nearest(queries), of


def recalls(exact: Neighbours, short: Neighbours, of: np.ndarray) -> tuple[float, float, float]:
    """Copies found exactly, by the shortlist, and by it of those found exactly."""
    one, other = exact.number == of, short.number == of
    print(
        f"\nexact {one.mean():.4f}, shortlist {other.mean():.4f}, of these {other[one].mean():.4f}"
    )
    return float(one.mean()), float(other.mean()), float(other[one].mean())


def test_the_shortlist_has_nearly_all_copies_that_all_products_find() -> None:
    exact, short, of = compared(6000, 256)
    found, _, share = recalls(exact, short, of)
    assert found >= 0.95
    assert share >= 0.97
    same = (exact.number == short.number) & (exact.number == of)
    assert short.similarity[same] == pytest.approx(exact.similarity[same], abs=1e-6)
    assert short.flipped[same].tolist() == exact.flipped[same].tolist()
    # Fewer others are known, so that evidence can only grow, and by little.
    assert np.median(exact.cohort[same] - short.cohort[same]) <= 0.02


def test_blocks_threads_and_another_process_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, queries, _ = maps_and_copies(5000, 96)
    plain = MapIndex(maps, MOST_SHIFT)
    plain.shorten()
    one = plain.nearest(queries)
    monkeypatch.setattr("sarhpc.measures.map_search._QUERIES", 11)
    again = MapIndex(maps, MOST_SHIFT)
    again.shorten()
    other = again.nearest(queries, workers=2)
    assert one.number.tolist() == other.number.tolist()
    assert one.similarity == pytest.approx(other.similarity, abs=1e-6)


def test_own_and_group_are_left_out_and_few_maps_are_all_compared() -> None:
    maps, _, _ = maps_and_copies(5000, 8)
    groups = np.arange(5000) // 4
    index = MapIndex(maps, MOST_SHIFT, groups)
    exact = index.nearest(maps[:32], groups=groups[:32])
    index.shorten()
    own = np.arange(32)
    assert (index.nearest(maps[:32]).number == own).all()
    assert (index.nearest(maps[:32], own=own).number != own).all()
    left_out = index.nearest(maps[:32], groups=groups[:32])
    assert left_out.number.tolist() == exact.number.tolist()
    few = MapIndex(maps[:100], MOST_SHIFT)
    few.shorten()
    assert not few.is_shortened


@pytest.mark.long
def test_of_100_000_maps_nearly_all_copies_are_found() -> None:
    found, _, share = recalls(*compared(100_000, 2048))
    assert found >= 0.95
    assert share >= 0.97
