from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest

from hpc.errors import ConfigError, DataError
from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch

ORDER = SampleOrder(seed=11, n=23)
START = Cursor()


def global_sequence(world: int, global_batch: int, count: int, cursor: Cursor = START) -> list:
    """Sample indices of `count` global batches, the shares of all ranks laid end to end."""
    ranks = [batches(ORDER, cursor, global_batch, rank, world) for rank in range(world)]
    sequence = []
    for _ in range(count):
        for rank in ranks:
            sequence += next(rank)[1]
    return sequence


def test_an_epoch_holds_every_sample_once():
    sequence = global_sequence(1, 8, 23)
    for epoch in range(8):
        assert sorted(sequence[epoch * 23 : (epoch + 1) * 23]) == list(range(23))


def test_epochs_and_seeds_differ():
    orders = [SampleOrder(seed, 50).epoch(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_the_order_is_the_same_on_every_machine_and_for_ever():
    assert SampleOrder(0, 8).epoch(0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert SampleOrder(2024, 8).epoch(3).tolist() == [5, 7, 4, 0, 6, 1, 2, 3]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_order_does_not_depend_on_the_world_size(world):
    assert global_sequence(world, 8, 12) == global_sequence(1, 8, 12)


def test_ranks_take_equal_shares_of_a_batch():
    for rank in range(4):
        _, share = next(batches(ORDER, Cursor(), 8, rank, 4))
        assert len(share) == 2


@pytest.mark.parametrize("stop", range(12))
def test_a_run_stopped_at_any_batch_resumes_exactly(stop):
    whole = global_sequence(2, 6, 12)
    cursor = Cursor()
    iterator = batches(ORDER, cursor, 6)
    for _ in range(stop):
        cursor, _ = next(iterator)
    assert whole[: 6 * stop] + global_sequence(2, 6, 12 - stop, cursor) == whole


def test_a_run_resumed_with_another_batch_and_world_skips_and_repeats_nothing():
    whole = global_sequence(1, 1, 46)
    cursor = Cursor()
    iterator = batches(ORDER, cursor, 6)
    for _ in range(3):
        cursor, _ = next(iterator)
    assert global_sequence(4, 4, 7, cursor) == whole[18:]


def test_the_cursor_counts_consumed_samples():
    cursors = [cursor for cursor, _ in itertools.islice(batches(ORDER, Cursor(), 10), 5)]
    assert cursors == [Cursor(0, 10), Cursor(0, 20), Cursor(1, 7), Cursor(1, 17), Cursor(2, 4)]


def test_a_batch_larger_than_the_set_goes_round():
    order = SampleOrder(0, 3)
    cursor, indices = next(batches(order, Cursor(), 8))
    assert cursor == Cursor(2, 2)
    assert sorted(indices[:3]) == sorted(indices[3:6]) == [0, 1, 2]


def test_bad_requests_are_refused():
    with pytest.raises(ConfigError, match="cannot be divided by 3 ranks"):
        next(batches(ORDER, Cursor(), 8, 0, 3))
    with pytest.raises(DataError, match="cursor"):
        next(batches(ORDER, Cursor(0, 99), 8))
    with pytest.raises(DataError, match="no samples"):
        SampleOrder(0, 0)


@pytest.mark.parametrize(("threads", "depth"), [(1, 1), (4, 1), (3, 5)])
def test_reading_ahead_changes_neither_order_nor_cursor(threads, depth):
    def load(index: int) -> int:
        time.sleep(0.001 * (index % 3))
        return index * 10

    plan = itertools.islice(batches(ORDER, Cursor(), 4), 9)
    expected = [
        (c, [i * 10 for i in b]) for c, b in itertools.islice(batches(ORDER, Cursor(), 4), 9)
    ]
    assert list(prefetch(load, plan, threads=threads, depth=depth)) == expected


def test_an_endless_plan_is_read_only_a_little_ahead_and_the_threads_end():
    loaded = []
    iterator = prefetch(lambda i: loaded.append(i), batches(ORDER, Cursor(), 4), threads=2, depth=2)
    next(iterator)
    iterator.close()
    assert len(loaded) <= 4 * 3
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_an_error_reaches_the_consumer_at_its_batch():
    bad = int(SampleOrder(11, 23).epoch(0)[5])

    def load(index: int) -> int:
        if index == bad:
            raise DataError("cut short")
        return index

    iterator = prefetch(load, batches(ORDER, Cursor(), 4), depth=3)
    cursor, first = next(iterator)
    assert cursor == Cursor(0, 4)
    assert len(first) == 4
    with pytest.raises(DataError, match="cut short"):
        next(iterator)


def test_a_million_samples_are_ordered_quickly():
    start = time.perf_counter()
    order = SampleOrder(0, 1_000_000).epoch(0)
    assert time.perf_counter() - start < 5
    assert np.bincount(order).max() == 1
