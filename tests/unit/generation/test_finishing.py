"""Images finished beside the sampler: in order, refused ones sampled again, whatever the timing."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from sarhpc.generation.finishing import (
    FinishedImage,
    SampledImage,
    Verdict,
    finished_in_order,
)
from sarhpc.generation.plan import ImageRequest

PIXELS = np.zeros((2, 2, 3), np.float32)


def requests(count: int) -> list[ImageRequest]:
    return [ImageRequest(index, "a town", 10 * index) for index in range(count)]


class Loop:
    """A sampler that records its batches, and a judge that refuses some seeds."""

    def __init__(self, refuse: set[int] = frozenset(), seed: int = 0) -> None:  # type: ignore[assignment]
        self.refuse, self.random = refuse, random.Random(seed)
        self.batches: list[int] = []
        self.threads: set[str] = set()

    def sample(self, batch: Sequence[ImageRequest]) -> list[SampledImage]:
        self.batches.append(len(batch))
        return [SampledImage(request, PIXELS, {}) for request in batch]

    def finish(self, sampled: SampledImage) -> FinishedImage:
        self.threads.add(threading.current_thread().name)
        time.sleep(self.random.uniform(0, 0.003))
        request, verdict = sampled.request, Verdict()
        if request.seed in self.refuse:
            verdict = Verdict("black", dataclasses.replace(request, seed=request.seed + 1))
        return FinishedImage(request, verdict, None)

    def run(self, count: int, batch: int) -> list[tuple[int, int, str | None]]:
        made = finished_in_order(requests(count), self.sample, self.finish, batch)
        return [(m.request.index, m.request.seed, m.verdict.reason) for m in made]


def test_images_come_in_order_from_threads_beside_the_sampler() -> None:
    loop = Loop()
    assert loop.run(10, 4) == [(index, 10 * index, None) for index in range(10)]
    assert loop.batches == [4, 4, 2]
    assert loop.threads
    assert threading.current_thread().name not in loop.threads


@pytest.mark.parametrize("batch", [1, 3, 8, 64])
@pytest.mark.parametrize("seed", range(3))
def test_a_refused_image_is_sampled_again_in_its_place_whatever_batch_and_timing(
    batch: int, seed: int
) -> None:
    refuse = {0, 1, 2, 50, 110, 111, 190}
    made = Loop(refuse, seed).run(20, batch)
    expected: list[tuple[int, int, str | None]] = []
    for index in range(20):
        tries = 10 * index
        while tries in refuse:
            expected.append((index, tries, "black"))
            tries += 1
        expected.append((index, tries, None))
    assert made == expected


def test_batches_are_full_up_to_the_last_ones() -> None:
    loop = Loop({0, 10, 20})
    loop.run(12, 4)
    assert loop.batches[:3] == [4, 4, 4]
    assert sum(loop.batches) == 15


def test_an_image_that_is_given_up_leaves_the_others() -> None:
    def give_up(sampled: SampledImage) -> FinishedImage:
        reason = "black" if sampled.request.index == 1 else None
        return FinishedImage(sampled.request, Verdict(reason), None)

    made = finished_in_order(requests(4), Loop().sample, give_up, 2)
    assert [(m.request.index, m.verdict.reason) for m in made] == [
        (0, None), (1, "black"), (2, None), (3, None),
    ]  # fmt: skip


def test_an_error_in_a_thread_ends_the_shard() -> None:
    def fail(sampled: SampledImage) -> FinishedImage:
        raise ValueError(f"image {sampled.request.index}")

    with pytest.raises(ValueError, match="image 0"):
        list(finished_in_order(requests(9), Loop().sample, fail, 2))
    assert not [t for t in threading.enumerate() if t.name.startswith("finish")]


def test_images_under_way_are_bounded_where_finishing_is_slower_than_sampling() -> None:
    under_way, most = 0, 0
    lock = threading.Lock()

    def sample(batch: Sequence[ImageRequest]) -> list[SampledImage]:
        nonlocal under_way, most
        with lock:
            under_way += len(batch)
            most = max(most, under_way)
        return [SampledImage(request, PIXELS, {}) for request in batch]

    def finish(sampled: SampledImage) -> FinishedImage:
        nonlocal under_way
        time.sleep(0.002)
        with lock:
            under_way -= 1
        return FinishedImage(sampled.request, Verdict(), None)

    assert len(list(finished_in_order(requests(64), sample, finish, 4))) == 64
    assert most <= 8
