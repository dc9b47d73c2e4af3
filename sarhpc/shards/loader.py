"""The training loader: an order that nothing but the seed decides, and exact resumption.

The samples of all epochs form one endless sequence: epoch 0 in its random order, then epoch 1 in
another, and so on. A global batch is the next `global_batch` samples of that sequence, so an epoch
holds each sample exactly once and no tail is dropped: the last batch of an epoch is filled from the
start of the next. World size, worker count and restarts cannot move the sequence; the position in
it is a `Cursor`, which belongs to the batch consumed and never to what was read ahead.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hpc.errors import ConfigError, DataError

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, order=True)
class Cursor:
    """Position after what was consumed: `sample` samples into epoch `epoch`."""

    epoch: int = 0
    sample: int = 0


@dataclass(frozen=True)
class SampleOrder:
    """Random order of `n` samples in every epoch, a pure function of (seed, epoch, n)."""

    seed: int
    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise DataError("no samples to train on: the shards are empty or the split is.")

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """Sample indices (n,) in the order of epoch `epoch`.

        Sorted raw PCG64 output rather than `Generator.permutation`: numpy promises the bit stream
        between versions, not what its distributions make of it (NEP 19), and a run may be resumed
        under another numpy.
        """
        stream = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        return np.argsort(stream.random_raw(self.n), kind="stable").astype(np.int64)

    def advance(self, cursor: Cursor, samples: int) -> Cursor:
        """The cursor `samples` samples further on."""
        epochs, sample = divmod(cursor.sample + samples, self.n)
        return Cursor(cursor.epoch + epochs, sample)

    def sequence(self, cursor: Cursor) -> Iterator[int]:
        """Yield sample indices from `cursor` on, without end."""
        if not 0 <= cursor.sample < self.n:
            raise DataError(
                f"cursor {cursor} does not fit {self.n} samples: the shards changed since it was "
                "saved; resume with the same sealed manifest."
            )
        start = cursor.sample
        for epoch in itertools.count(cursor.epoch):
            yield from self.epoch(epoch)[start:].tolist()
            start = 0


def batches(
    order: SampleOrder, cursor: Cursor, global_batch: int, rank: int = 0, world: int = 1
) -> Iterator[tuple[Cursor, list[int]]]:
    """Yield (cursor after the batch, sample indices of this rank) without end.

    Rank r takes positions [r*k, (r+1)*k) of each global batch, k = global_batch / world, so the
    batches of all ranks laid end to end are the same for every world size.

    Raises:
        ConfigError: the global batch cannot be divided among the ranks.
        DataError: the cursor does not fit the number of samples.
    """
    if global_batch < 1 or global_batch % world:
        raise ConfigError(f"a global batch of {global_batch} cannot be divided by {world} ranks.")
    share = global_batch // world
    sequence = order.sequence(cursor)
    while True:
        batch = list(itertools.islice(sequence, global_batch))
        cursor = order.advance(cursor, global_batch)
        yield cursor, batch[rank * share : (rank + 1) * share]


def prefetch(
    load: Callable[[int], T],
    plan: Iterator[tuple[Cursor, list[int]]],
    *,
    threads: int = 2,
    depth: int = 2,
) -> Generator[tuple[Cursor, list[T]], None, None]:
    """As `prefetch_assembled`, each batch the list of its samples."""
    yield from prefetch_assembled(
        load, lambda _, samples: samples, plan, threads=threads, depth=depth
    )


def prefetch_assembled(
    load: Callable[[int], T],
    assemble: Callable[[Cursor, list[T]], U],
    plan: Iterator[tuple[Cursor, list[int]]],
    *,
    threads: int = 2,
    depth: int = 2,
) -> Generator[tuple[Cursor, U], None, None]:
    """Yield (cursor, assembled batch), reading up to `depth` batches ahead.

    Samples are loaded, and batches assembled, in threads. Order and content do not depend on
    `threads` or `depth`. An error of either is raised when its batch is reached. Close the
    iterator to stop the threads.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    ahead: deque[tuple[Cursor, Future[U]]] = deque()

    def assembled(cursor: Cursor, samples: list[Future[T]]) -> U:
        """The batch, once its samples are there."""
        # They stand before it in the queue, so a thread is at each, or done with it.
        return assemble(cursor, [sample.result() for sample in samples])

    def submit(count: int) -> None:
        """Queue the next batches of the plan."""
        for cursor, indices in itertools.islice(plan, count):
            samples = [pool.submit(load, index) for index in indices]
            ahead.append((cursor, pool.submit(assembled, cursor, samples)))

    try:
        submit(max(depth, 1))
        while ahead:
            cursor, batch = ahead.popleft()
            found = batch.result()
            submit(1)
            yield cursor, found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
