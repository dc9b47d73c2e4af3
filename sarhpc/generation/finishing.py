"""Images of a shard: sampled in the calling thread, finished in threads beside it, in order.

While the calling thread samples a batch, the threads convert, encode and judge the one before. An
image that was refused may be requested again under the same index, with another seed: such
requests are sampled first, in whichever batch comes next. A batch does not change the bits of its
images, so what comes out depends on the requests and the verdicts, not on when each thread ran.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.generation.plan import ImageRequest
from sarhpc.shards.sample import Sample

FINISHING_THREADS = 4
"""Threads that finish images: no more wait at the end of a shard than a batch divided by them."""


@dataclass(frozen=True)
class SampledImage:
    """An image as the model gave it."""

    request: ImageRequest
    image: NDArray[np.float32]
    """(H, W, 3) in [0, 1]."""
    facts: Mapping[str, Any]
    """Its own entries of `meta.json`."""
    conditions: tuple[SampledImage, ...] = ()
    """In a sweep the images of the layout under each of its conditions; the first is this one."""


@dataclass(frozen=True)
class Verdict:
    """Whether an image enters the corpus."""

    reason: str | None = None
    """Why it is refused; None if it is accepted."""
    again: ImageRequest | None = None
    """Request to sample in place of a refused image, of the same index; None leaves a gap."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of `meta.json`."""


@dataclass(frozen=True)
class FinishedImage:
    """An image ready to be written."""

    request: ImageRequest
    verdict: Verdict
    sample: Sample | None
    """None where nothing is written of it."""
    layout: tuple[Sample, ...] = ()
    """In a sweep what is written in its place if it is accepted: the images of its layout."""


SampleBatch = Callable[[Sequence[ImageRequest]], Sequence[SampledImage]]
Finish = Callable[[SampledImage], FinishedImage]
"""Called in a thread beside the sampler; depends on nothing but its argument."""
Admit = Callable[[FinishedImage], FinishedImage]
"""Called with each accepted image, in order, in the thread that iterates: the image, or the image
refused after all, because of those before it."""


def _as_it_is(image: FinishedImage) -> FinishedImage:
    return image


def finished_in_order(
    requests: Sequence[ImageRequest],
    sample: SampleBatch,
    finish: Finish,
    batch: int,
    admit: Admit = _as_it_is,
) -> Iterator[FinishedImage]:
    """Every image of `requests` in their order; before an accepted one those that were refused.

    Images under way are bounded by two batches, and by the requests that come again.

    Args:
        requests: The images.
        sample: Makes a batch, in the thread that iterates.
        finish: Makes of an image what is written.
        batch: Images of a full batch; only the last ones may be smaller.
        admit: Decides of an accepted image by those before it.

    Raises:
        Exception: whatever `sample` and `finish` raise.
    """
    pool = ThreadPoolExecutor(FINISHING_THREADS, thread_name_prefix="finish")
    try:
        yield from _Images(requests, finish, admit, pool).made(sample, batch)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Images:
    """The images of one shard: left to sample, under way, finished."""

    def __init__(
        self,
        requests: Sequence[ImageRequest],
        finish: Finish,
        admit: Admit,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._finish, self._admit, self._pool = finish, admit, pool
        self._new = deque(requests)
        self._again: deque[ImageRequest] = deque()
        self._under_way: deque[Future[FinishedImage]] = deque()
        self._order = deque(request.index for request in requests)
        self._finished: dict[int, list[FinishedImage]] = {}
        self._settled: set[int] = set()

    def made(self, sample: SampleBatch, size: int) -> Iterator[FinishedImage]:
        """The images in order, made in batches of `size`."""
        while self._order:
            requests = self._next_batch(size)
            for image in sample(requests) if requests else ():
                self._under_way.append(self._pool.submit(self._finish, image))
            while self._under_way and (self._under_way[0].done() or len(self._under_way) > size):
                self._collect()
            yield from self._in_order()

    def _next_batch(self, size: int) -> list[ImageRequest]:
        """Up to `size` requests; fewer only when no image is under way that may come again."""
        found: list[ImageRequest] = []
        while len(found) < size:
            if self._again:
                found.append(self._again.popleft())
            elif self._new:
                found.append(self._new.popleft())
            elif self._under_way:
                self._collect()
            else:
                break
        return found

    def _collect(self) -> None:
        """Take over the oldest image under way, waiting for it."""
        image = self._under_way.popleft().result()
        self._finished.setdefault(image.request.index, []).append(image)
        self._settle(image)

    def _settle(self, image: FinishedImage) -> None:
        """Note that nothing more comes of the request, or sample it again."""
        if image.verdict.again is None:
            self._settled.add(image.request.index)
        else:
            self._settled.discard(image.request.index)
            self._again.append(image.verdict.again)

    def _in_order(self) -> Iterator[FinishedImage]:
        """The images whose predecessors are all settled."""
        while self._order and self._order[0] in self._settled:
            images = self._finished[self._order[0]]
            if images[-1].verdict.reason is None:
                images[-1] = self._admit(images[-1])
                self._settle(images[-1])
                if self._order[0] not in self._settled:
                    return
            del self._finished[self._order.popleft()]
            yield from images
