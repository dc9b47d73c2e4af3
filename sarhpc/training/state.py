"""How far a training is, in its steps and on disk, and how it ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError
from sarhpc.shards.loader import Cursor
from sarhpc.training.context import Stop, Store

_log = logging.getLogger(__name__)

AT_ONCE_S = 2.0
"""Checkpoints that are durable within this time are committed before the next step."""


@dataclass(frozen=True)
class FitResult:
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
class TrainState:
    """How far a training is, and which of its checkpoints are on disk."""

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    saved: int | None = None
    """Step whose checkpoint is committed."""
    saved_at: float = field(default_factory=time.monotonic)
    checkpoint: Path | None = None
    due: bool = False
    """Whether the clock or a save request asks for a checkpoint."""
    begun: int | None = None
    """Step whose checkpoint is written, and becomes durable while training goes on."""
    stalled_s: float = 0.0
    """Seconds this rank waited for checkpoints since they were last reported."""
    loss: float | None = None

    def restore(self, directory: Path, state: Mapping[str, Any]) -> None:
        """Go back to where the checkpoint in `directory` was saved."""
        self.step, self.cursor = int(state["step"]), Cursor(**state["cursor"])
        self.saved, self.checkpoint = self.step, directory

    def save(
        self, store: Store, write: Callable[[Path], list[Path]], state: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint of this step, unless there is one or no step was taken. Collective.

        `commit` makes it count; that of an earlier step is committed first.

        Args:
            store: commits it.
            write: writes this rank's part.
            state: what is kept beside the place in the data.
        """
        self.due = False
        if self.step in (self.saved, self.begun, 0):
            return
        self.commit(store)
        start = time.monotonic()
        cursor = {"epoch": self.cursor.epoch, "sample": self.cursor.sample}
        store.begin(self.step, write, {"cursor": cursor, **state})
        self.begun, self.saved_at = self.step, time.monotonic()
        self.stalled_s += self.saved_at - start
        self.commit(store, AT_ONCE_S)

    def commit(self, store: Store, timeout_s: float = threading.TIMEOUT_MAX) -> None:
        """Commit what was written, if every rank is ready within `timeout_s`. Collective."""
        if self.begun is None:
            return
        start = time.monotonic()
        checkpoint = store.finish(timeout_s)
        now = time.monotonic()
        self.stalled_s += now - start
        if checkpoint is not None:
            _log.info("checkpoint step=%d durable_after_s=%.1f", self.begun, now - self.saved_at)
            self.checkpoint, self.saved, self.begun = checkpoint, self.begun, None

    @property
    def safe_step(self) -> int:
        """Step from which a restart after a numerical error resumes; 0 is the base."""
        return self.begun or self.saved or 0

    def checkpoint_row(self) -> dict[str, float]:
        """Seconds lost to checkpoints since the last call, for a row of metrics."""
        stalled, self.stalled_s = self.stalled_s, 0.0
        return {"checkpoint_s": stalled} if stalled else {}


def require_same_facts(directory: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a checkpoint was saved by the training that resumes from it."""
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
