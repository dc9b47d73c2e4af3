"""What the run around a training provides: folder, checkpoint store, stop request, pace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MOST_URGENT = 7
"""Largest number of a reason."""


class Stop(Protocol):
    """Why the ranks interrupt their work."""

    @property
    def name(self) -> str:
        """The reason in a word."""

    @property
    def stops(self) -> bool:
        """Whether the work ends after the save."""

    @property
    def requeues(self) -> bool:
        """Whether the job asks to be queued again after the save."""


class StopRequest(Protocol):
    """The request to stop, agreed on by all ranks."""

    def agree(self) -> Stop | None:
        """The reason to interrupt now, the same on every rank. Collective."""

    def agreed(self, urgency: int) -> Stop | None:
        """The same, where the largest `urgency` of all ranks is known. Collective."""

    def urgency(self) -> int:
        """The reason that this rank knows, from 1 to `MOST_URGENT`; 0 without any."""


class Store(Protocol):
    """Where checkpoints are committed and chosen; every method is collective."""

    def begin(
        self, step: int, write: Callable[[Path], list[Path]], state: Mapping[str, Any]
    ) -> None:
        """Write the checkpoint of `step`, which does not count before it is finished."""

    def finish(self, timeout_s: float) -> Path | None:
        """The checkpoint begun last, whole and durable; None if a rank needs longer than that."""

    def load(self, read: Callable[[Path, Mapping[str, Any]], None]) -> Mapping[str, Any] | None:
        """The state of the newest checkpoint that every rank could read; None without any."""


class Pace(Protocol):
    """Compares how fast the ranks work."""

    def note(self, step: int, own_s: float) -> object:
        """Record the seconds this rank spent on its own part of a step. Collective."""


@dataclass(frozen=True)
class TrainContext:
    """What the run around a training provides."""

    folder: Path
    """Receives metrics.jsonl and reports of steps that are not finite."""
    store: Store
    stop: StopRequest
    pace: Pace | None = None
    """None compares nothing."""
