"""Counts and samples of unbounded streams, in bounded memory."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


class EvenSample(Generic[T]):
    """Items spread evenly over a stream of unknown length: every first, second, fourth, ... one.

    At least `most` of them, or all, and never more than twice as many; the same stream gives the
    same items.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.items: list[T] = []
        self.seen = 0
        self._step = 1

    def offer(self, item: T) -> None:
        """Take or skip the next item of the stream."""
        if self.seen % self._step == 0:
            if len(self.items) == 2 * self.most:
                self.items = self.items[::2]
                self._step *= 2
            if self.seen % self._step == 0:
                self.items.append(item)
        self.seen += 1


class Tally:
    """Counts of each value; values beyond the first `most` distinct ones count as others."""

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self.counts: Counter[str] = Counter()
        self.others = 0

    def add(self, value: str) -> None:
        """Count one value."""
        if value in self.counts or len(self.counts) < self.most:
            self.counts[value] += 1
        else:
            self.others += 1

    @property
    def total(self) -> int:
        """Values counted."""
        return self.counts.total() + self.others

    @property
    def distinct(self) -> str:
        """Number of distinct values, `more than N` where they were not all counted apart."""
        return f"more than {self.most:,}" if self.others else f"{len(self.counts):,}"

    def ranked(self, count: int) -> list[tuple[str, int]]:
        """The `count` most frequent values; equal counts by name."""
        order = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        rest = sum(n for _, n in order[count:]) + self.others
        return order[:count] + ([("others", rest)] if rest else [])


@dataclass
class Histogram:
    """Histogram over fixed edges, with mean and extremes; outliers count in the end bins."""

    edges: Sequence[float]
    counts: list[int] = field(init=False)
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.edges) - 1)

    def add(self, value: float) -> None:
        """Count one value."""
        place = bisect.bisect_right(self.edges, value) - 1
        self.counts[min(max(place, 0), len(self.counts) - 1)] += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean of the values; 0 without any."""
        return self.total / len(self) if len(self) else 0.0


class Warnings:
    """Warnings by kind: how often each occurred, and the first places."""

    def __init__(self, examples: int = 3) -> None:
        self.examples = examples
        self._counts: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}

    def add(self, kind: str, place: str) -> None:
        """Note that `kind` was found at `place`."""
        self._counts[kind] += 1
        places = self._places.setdefault(kind, [])
        if len(places) < self.examples:
            places.append(place)

    def lines(self) -> list[str]:
        """One line for each kind, in the order they were found."""
        return [self._line(kind, count) for kind, count in self._counts.items()]

    def _line(self, kind: str, count: int) -> str:
        places = ", ".join(self._places[kind])
        more = f" and {count - self.examples:,} more" if count > self.examples else ""
        return f"{kind}: {places}{more}"
