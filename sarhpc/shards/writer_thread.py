"""A shard written in a thread of its own, while the calling thread makes the samples."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sarhpc.shards.sample import Sample
from sarhpc.shards.writer import ShardSummary, write_shard

SAMPLES_WAITING = 64
_POLL_S = 0.2


def write_shard_beside(path: Path, samples: Iterable[Sample]) -> ShardSummary:
    """Publish `samples` as the tar `path`, as `write_shard` does; tar and digest in a thread.

    Samples are made in the calling thread. At most `SAMPLES_WAITING` wait to be written.

    Raises:
        DataError: a key repeats or goes backwards, or a key, member name or member list is unfit.
        TransientError: the disk or a quota is full.
        Exception: whatever `samples` raises; then nothing was published.
    """
    passed = _PassedSamples()
    with ThreadPoolExecutor(1, "write") as pool:
        written = pool.submit(write_shard, path, passed.arriving())
        with passed.ending():
            for sample in samples:
                passed.put(sample, written)
    return written.result()


class _AbandonedError(Exception):
    """The samples ended in an exception, so that the shard must not be published."""


class _PassedSamples:
    """Samples on their way from the thread that makes them to the one that writes them."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Sample | None] = queue.Queue(SAMPLES_WAITING)
        self._complete = self._over = False

    def put(self, sample: Sample, written: Future[ShardSummary]) -> None:
        """Pass on a sample once there is room; raises what ended the writing, if it has ended."""
        while not written.done():
            with contextlib.suppress(queue.Full):
                return self._waiting.put(sample, timeout=_POLL_S)
        written.result()

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """End the samples with the block: complete, or abandoned if it ends in an exception."""
        try:
            yield
            self._complete = True
        finally:
            self._over = True
            # Only wakes the writer up, which sees by itself within a moment that it is over.
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(None)

    def arriving(self) -> Iterator[Sample]:
        """The samples, in the thread that writes them."""
        while True:
            try:
                sample = self._waiting.get(timeout=_POLL_S)
            except queue.Empty:
                sample = None
            if self._over and not self._complete:
                raise _AbandonedError
            if sample is not None:
                yield sample
            elif self._over and self._waiting.empty():
                return
