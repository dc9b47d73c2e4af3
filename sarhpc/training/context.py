"""What a training is given by the run around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sarhpc.training.denoising.validation import StopRequest


class Store(Protocol):
    """Where checkpoints are committed and chosen; every method is collective."""

    def begin(
        self, step: int, write: Callable[[Path], list[Path]], state: Mapping[str, Any]
    ) -> None:
        """Write the checkpoint of `step`, which is none before it is finished."""

    def finish(self, patience_s: float) -> Path | None:
        """The checkpoint begun last, whole and durable; None if a rank needs longer than that."""

    def load(self, read: Callable[[Path, Mapping[str, Any]], None]) -> Mapping[str, Any] | None:
        """The state of the newest checkpoint that every rank could read; None without any."""


class Communicator(Protocol):
    """Agreement of the ranks."""

    def barrier(self) -> None:
        """Return when every rank has come here."""

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value` in rank order."""


class Pace(Protocol):
    """Compares how fast the ranks work."""

    def note(self, step: int, own_s: float) -> object:
        """Take in the seconds this rank spent on its own part of a step. Collective."""


class Judge(Protocol):
    """Compares painted images with real ones."""

    def __call__(self, painted: NDArray[np.uint8]) -> dict[str, float]:
        """Distances of images (N, H, W), and their `score`: less is better. Not collective."""


@dataclass(frozen=True)
class Surroundings:
    """What a training is given by the run around it."""

    folder: Path
    """Takes metrics.jsonl, the validation grids and trouble reports."""
    store: Store
    stop: StopRequest
    communicator: Communicator
    pace: Pace | None = None
    """None compares nothing."""
    latents: tuple[Path, ...] = ()
    """Shards of latents encoded before; none encodes tiles as they come."""
    judge: Judge | None = None
    """Judges each validation grid, on rank 0; None judges none."""
