"""Work that the ranks of a fine-tuning divide among themselves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from hpc.job.agreement import RankGroup

T = TypeVar("T")
P = TypeVar("P")

StopCheck = Callable[[], None]
"""Raises StopRequestedError on all ranks if a stop was requested. Collective."""


def divide_work(
    ranks: RankGroup,
    parts: Sequence[P],
    work: Callable[[P], T],
    check_stop: StopCheck | None = None,
) -> list[T]:
    """Results of `work` on `parts` in their order, each made by one rank. Collective.

    Raises:
        StopRequestedError: `check_stop`, asked before each round of parts, found a request.
    """
    rounds = work_in_rounds(ranks, parts, work)
    while True:
        try:
            next(rounds)
        except StopIteration as end:
            results: list[T] = end.value
            return results
        if check_stop is not None:
            check_stop()


def work_in_rounds(
    ranks: RankGroup, parts: Sequence[P], work: Callable[[P], T]
) -> Generator[None, None, list[T]]:
    """Yield before each round of parts, one a rank; return what `divide_work` does. Collective.

    The ranks may stop wherever it yields.
    """
    own = []
    for first in range(0, len(parts), ranks.world):
        yield
        at = first + ranks.rank
        if at < len(parts):
            own.append(work(parts[at]))
    each = ranks.gather(own)
    return [each[at % ranks.world][at // ranks.world] for at in range(len(parts))]
