"""The ranks a fine-tuning runs on, and how they divide what none of them needs alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")
P = TypeVar("P")


@dataclass(frozen=True)
class Company:
    """This process among the ranks."""

    rank: int
    world: int
    device: torch.device
    folder: Path
    """Takes metrics.jsonl and what stands beside it; seen by all ranks."""
    gather: Callable[[Any], list[Any]]
    """Every rank's value in rank order. Collective."""
    ask: Callable[[], None]
    """Raises StopRequestedError on all ranks if somebody wants them to end. Collective."""

    def from_first(self, value: T | None) -> T:
        """The value of rank 0, on every rank. Collective."""
        [first, *_] = self.gather(value)
        found: T = first
        return found

    def share(
        self, parts: Sequence[P], work: Callable[[P], T], *, patiently: bool = False
    ) -> list[T]:
        """Results of `work` on `parts` in their order, each made by one rank. Collective.

        Raises:
            StopRequestedError: somebody asked to end meanwhile, unless `patiently`.
        """
        mine = []
        for first in range(0, len(parts), self.world):
            if not patiently:
                self.ask()
            at = first + self.rank
            if at < len(parts):
                mine.append(work(parts[at]))
        each = self.gather(mine)
        return [each[at % self.world][at // self.world] for at in range(len(parts))]
