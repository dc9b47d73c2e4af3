"""Global batches and cursors at the ends of their ranges."""

from __future__ import annotations

import itertools
import threading

import pytest

from hpc.errors import ConfigError, DataError
from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch

ORDER = SampleOrder(seed=11, n=5)


@pytest.mark.parametrize(("global_batch", "world"), [(0, 1), (0, 2), (-2, 1), (3, 2), (1, 2)])
def test_a_batch_of_nothing_or_of_parts_is_refused(global_batch: int, world: int) -> None:
    with pytest.raises(ConfigError, match=f"batch of {global_batch} cannot be divided by {world}"):
        next(batches(ORDER, Cursor(), global_batch, 0, world))


def test_a_batch_of_one_and_a_set_of_one_are_batches_and_sets() -> None:
    order = SampleOrder(seed=0, n=1)
    found = list(itertools.islice(batches(order, Cursor(), 1), 3))
    assert found == [(Cursor(1), [0]), (Cursor(2), [0]), (Cursor(3), [0])]


@pytest.mark.parametrize("sample", [-1, 5])
def test_a_cursor_outside_the_set_is_refused(sample: int) -> None:
    with pytest.raises(DataError, match="does not fit 5 samples"):
        next(batches(ORDER, Cursor(0, sample), 1))


def test_the_last_sample_of_an_epoch_is_a_place_to_go_on_from() -> None:
    last = int(ORDER.epoch(0)[4])
    first = int(ORDER.epoch(1)[0])
    cursor, found = next(batches(ORDER, Cursor(0, 4), 2))
    assert found == [last, first]
    assert cursor == Cursor(1, 1)
    assert ORDER.advance(Cursor(2, 3), 12) == Cursor(5, 0)


def test_ranks_take_their_places_of_the_batch_in_order() -> None:
    whole = next(batches(ORDER, Cursor(), 4))[1]
    assert [next(batches(ORDER, Cursor(), 4, rank, 2))[1] for rank in (0, 1)] == [
        whole[:2],
        whole[2:],
    ]


def test_cursors_are_ordered_by_epoch_and_then_by_sample() -> None:
    assert Cursor(0, 4) < Cursor(1, 0) < Cursor(1, 1)
    assert Cursor() == Cursor(0, 0)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_as_many_batches_are_read_ahead_as_asked_and_at_least_one(depth: int) -> None:
    drawn = []

    def plan():
        for number in range(9):
            drawn.append(number)
            yield Cursor(0, number), [number]

    iterator = prefetch(lambda index: -index, plan(), depth=depth)
    assert next(iterator) == (Cursor(0, 0), [0])
    assert len(drawn) == max(depth, 1) + 1
    assert [loaded for _, loaded in iterator] == [[-n] for n in range(1, 9)]


def test_two_batches_are_read_ahead_by_two_threads_unless_told_otherwise() -> None:
    drawn: list[int] = []
    threads: list[int] = []
    gate = threading.Event()

    def plan():
        for number in range(9):
            drawn.append(number)
            yield Cursor(0, number), [number, -number]

    def look() -> None:
        threads.append(sum(one.name.startswith("loader") for one in threading.enumerate()))
        gate.set()

    iterator = prefetch(lambda index: gate.wait(20), plan())
    threading.Timer(0.05, look).start()
    assert next(iterator) == (Cursor(0, 0), [True, True])
    assert threads == [2]
    assert len(drawn) == 3
    iterator.close()


def test_what_was_read_ahead_and_not_begun_is_dropped_with_the_iterator() -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def load(index: int) -> int:
        begun.append(index)
        assert index in first or go_on.wait(20)
        return index

    first = next(batches(ORDER, Cursor(), 2))[1]
    iterator = prefetch(load, batches(ORDER, Cursor(), 2), threads=1, depth=5)
    assert next(iterator)[1] == first
    threading.Timer(0.05, go_on.set).start()
    iterator.close()
    assert len(begun) <= 3 + len(first)
