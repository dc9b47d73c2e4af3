"""Where a training stands, in its steps and on disk, and how it gets from there to its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError, NumericalError
from sarhpc.shards.loader import Cursor
from sarhpc.training.context import Store
from sarhpc.training.denoising.validation import Stop, StopRequest

_log = logging.getLogger(__name__)

AT_ONCE_S = 2.0
"""Checkpoints that are durable within this time are committed before the next step."""


@dataclass(frozen=True)
class TrainResult:
    """How a training ended; the same on every rank."""

    step: int
    """Steps done in all attempts, those that were skipped too."""
    epochs: int
    """Epochs completed."""
    finished: bool
    """Whether all steps are done."""
    reason: Stop | None
    """Why it ended before that."""
    loss: float | None
    """Mean loss of the last step; None if this attempt took none."""
    checkpoint: Path | None
    """The checkpoint this attempt ended with; None if it neither loaded nor saved one."""


@dataclass(kw_only=True)
class Standing:
    """Where a training stands."""

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    saved: int | None = None
    """Step whose checkpoint is on disk."""
    saved_at: float = field(default_factory=time.monotonic)
    checkpoint: Path | None = None
    due: bool = False
    """Whether the clock asks for a checkpoint."""
    begun: int | None = None
    """Step whose checkpoint is written, and becomes durable while steps are taken."""
    stalled_s: float = 0.0
    """Seconds that checkpoints kept this rank from its steps since they were last told of."""
    loss: float | None = None

    def take_up(self, directory: Path, state: Mapping[str, Any]) -> None:
        """Stand where the checkpoint in `directory` was saved."""
        self.step, self.cursor = int(state["step"]), Cursor(**state["cursor"])
        self.saved, self.checkpoint = self.step, directory

    def save(
        self, store: Store, write: Callable[[Path], list[Path]], state: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint of this step, unless there is one or no step was taken. Collective.

        `settle` makes it one; that of a step before is settled first.

        Args:
            store: commits it.
            write: writes this rank's part.
            state: what is kept beside the place in the data.
        """
        self.due = False
        if self.step in (self.saved, self.begun, 0):
            return
        self.settle(store)
        start = time.monotonic()
        cursor = {"epoch": self.cursor.epoch, "sample": self.cursor.sample}
        store.begin(self.step, write, {"cursor": cursor, **state})
        self.begun, self.saved_at = self.step, time.monotonic()
        self.stalled_s += self.saved_at - start
        self.settle(store, AT_ONCE_S)

    def settle(self, store: Store, patience_s: float = threading.TIMEOUT_MAX) -> None:
        """Commit what was written, if every rank is ready within `patience_s`. Collective."""
        if self.begun is None:
            return
        start = time.monotonic()
        checkpoint = store.finish(patience_s)
        now = time.monotonic()
        self.stalled_s += now - start
        if checkpoint is not None:
            _log.info("checkpoint step=%d durable_after_s=%.1f", self.begun, now - self.saved_at)
            self.checkpoint, self.saved, self.begun = checkpoint, self.begun, None

    @property
    def safe_step(self) -> int:
        """Step that a start after an error in the numbers goes on from; 0 is the base."""
        return self.begun or self.saved or 0

    def told_stall(self) -> dict[str, float]:
        """Seconds lost to checkpoints since this was last asked, for a row of metrics."""
        stalled, self.stalled_s = self.stalled_s, 0.0
        return {"checkpoint_s": stalled} if stalled else {}


@dataclass(frozen=True)
class Moves:
    """What a training does at a step boundary and between two; all of it is collective."""

    pause: Callable[[], Stop | None]
    """Looks at what was learnt, where that is due; a reason to stop that came up meanwhile."""
    is_checkpoint_due: Callable[[], bool]
    save: Callable[[], None]
    """Writes a checkpoint."""
    settle: Callable[[float], None]
    """Commits the one written last, if it is durable within seconds."""
    take_step: Callable[[], None]


def advance(run: Standing, steps: int, stop: StopRequest, moves: Moves) -> tuple[bool, Stop | None]:
    """Whether `run` came to its end of `steps`, and else why not; it is saved either way.

    Raises:
        NumericalError: what a step raised; the checkpoint written before it is committed.
    """
    while True:
        # First, as a pause may be minutes of painting.
        moves.settle(0)
        reason = moves.pause() or stop.agree()
        finished = run.step >= steps
        if finished or reason or moves.is_checkpoint_due():
            moves.save()
        if finished or (reason and reason.stops):
            moves.settle(threading.TIMEOUT_MAX)
            return finished, None if finished else reason
        try:
            moves.take_step()
        except NumericalError:
            # All ranks agree on numbers, so all of them are here.
            moves.settle(threading.TIMEOUT_MAX)
            raise


def require_same_facts(directory: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Return if a checkpoint was saved under the training that is to take it up.

    Raises:
        ConfigError: it was not; names what changed.
    """
    changed = [
        f"{name} {saved.get(name)} -> {value}"
        for name, value in now.items()
        if saved.get(name) != value
    ]
    if changed:
        raise ConfigError(
            f"{directory} was saved under another training ({', '.join(changed)}); "
            "resume with the configuration and shards it had, or start a new run"
        )
