"""A watchdog in every process: work that stands still says where, ends, and comes back.

Ranks that wait for each other in a collective wait for ever when one of them is gone. Here each
process notes its progress; whoever sees none for too long leaves a mark on disk, all processes
write the stacks of all their threads, and the job ends with one line that names those that did not
answer. The job's script then brings it back, as long as that is no crash loop.

The heartbeat files carry the time of the last progress, not of the thread that writes them: what
hangs looks old.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import faulthandler
import json
import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpc.cluster.allocation import current_allocation
from hpc.errors import TransientError
from hpc.job.stop import StopReason
from hpc.publish import temporary_path
from hpc.store.attempts import HANG, Attempt, end_attempt

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long without progress is too long."""

    first_s: float = 3600.0
    """Until the first progress: models are loaded, indexes read."""
    least_s: float = 600.0
    """Later, at least; a save or a slow file system must fit in."""
    times: float = 20.0
    """Later, as a multiple of the usual time between two signs of progress."""
    write_every_s: float = 15.0
    """Between two heartbeat files."""
    look_every_s: float = 2.0
    """Between two looks."""
    answers_within_s: float = 15.0
    """How long the others have to write their stacks."""


@dataclass(frozen=True)
class Place:
    """The process that is watched, among all of its stage."""

    directory: Path
    """Of the stage."""
    rank: int = 0
    world: int = 1
    attempt: int = 0
    element: int | None = None

    @property
    def label(self) -> str:
        """Name of this process in file names."""
        return f"r{self.rank:05d}" if self.element is None else f"e{self.element:05d}"

    @property
    def heartbeat(self) -> Path:
        """Its heartbeat file."""
        return self.directory / "heartbeat" / f"{self.label}.json"

    def stacks(self, rank: int) -> Path:
        """Where a rank of the same start writes its stacks."""
        label = f"r{rank:05d}" if self.element is None else self.label
        return self.directory / "logs" / f"stacks-{self.start}-{label}.txt"

    @property
    def mark(self) -> Path:
        """Says that this start hangs, and who noticed."""
        what = "" if self.element is None else f"-{self.label}"
        return self.directory / "heartbeat" / f".hang-{self.start}{what}"

    @property
    def start(self) -> str:
        """Unique to this start of this job."""
        here = current_allocation()
        return here.name if here.job_id is not None else f"attempt-{self.attempt}"


class Watchdog:
    """Watches one process from a thread of its own; `watching` starts and ends it."""

    def __init__(
        self,
        place: Place,
        progress: Callable[[], int],
        limits: Limits | None = None,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Watch a process.

        Args:
            place: of the process.
            progress: what the attempt has reached, for its last line.
            limits: how long without progress is too long.
            leave: ends the process with an exit code.
        """
        self.place = place
        self._progress = progress
        self.more: Callable[[], str] | None = None
        """Asked for the stacks of other processes this one is responsible for."""
        self._limits = limits or Limits()
        self._leave = leave
        self._began = self._last = time.monotonic()
        self._beats = 0
        self._pauses: collections.deque[float] = collections.deque(maxlen=50)
        self._written = float("-inf")

    def beat(self) -> None:
        """There is progress; cheap enough for every step."""
        now = time.monotonic()
        if self._beats:
            self._pauses.append(now - self._last)
        self._last = now
        self._beats += 1

    @property
    def limit_s(self) -> float:
        """How long without progress is too long now, s."""
        if not self._pauses:
            return self._limits.first_s
        return max(self._limits.least_s, self._limits.times * statistics.median(self._pauses))

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watchdog]:
        """Watch while the block runs."""
        over = threading.Event()
        self._began = self._last = time.monotonic()
        for folder in (self.place.heartbeat.parent, self.place.stacks(0).parent):
            folder.mkdir(parents=True, exist_ok=True)
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True, name="watchdog")
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()
            self.place.heartbeat.unlink(missing_ok=True)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(self._limits.look_every_s):
            try:
                self._write_heartbeat()
                silent = time.monotonic() - self._last
                if silent > self.limit_s and self._claim(silent):
                    self._end_all(silent)
                elif self.place.mark.exists():
                    self._answer(over)
            except OSError as error:
                # A file system that is away for a moment must not end the watch.
                _log.warning("watchdog of rank %d: %s", self.place.rank, error)

    def _write_heartbeat(self) -> None:
        if self._last <= self._written or not self._beats:
            return
        if time.monotonic() - self._written < self._limits.write_every_s:
            return
        here, seen = current_allocation(), time.time() - (time.monotonic() - self._last)
        told = {
            "schema": "sarhpc.heartbeat/1",
            "rank": self.place.rank,
            "element": self.place.element,
            "attempt": self.place.attempt,
            "job": here.job_id,
            "restart": here.restart,
            "host": here.node,
            "pid": os.getpid(),
            "beats": self._beats,
            "seconds": round(statistics.median(self._pauses), 4) if self._pauses else None,
            "at": datetime.datetime.fromtimestamp(seen, datetime.UTC).strftime("%FT%TZ"),
        }
        # Not durable on purpose: it is worth nothing after a crash, and comes again in seconds.
        temporary = temporary_path(self.place.heartbeat)
        temporary.write_text(json.dumps(told, sort_keys=True) + "\n")
        os.utime(temporary, (seen, seen))
        os.replace(temporary, self.place.heartbeat)
        self._written = time.monotonic()

    def _claim(self, silent: float) -> bool:
        """Whether this process is the first to say that the job hangs."""
        try:
            descriptor = os.open(self.place.mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(f"rank {self.place.rank}: no progress for {silent:.0f} s\n")
        return True

    def _end_all(self, silent: float) -> None:
        """Collect the stacks of all, say what is known, end the attempt and this process."""
        self._dump()
        ranks = [self.place.rank] if self.place.element is not None else range(self.place.world)
        until = time.monotonic() + self._limits.answers_within_s
        while True:
            mute = [rank for rank in ranks if not self.place.stacks(rank).exists()]
            if not mute or time.monotonic() >= until:
                break
            time.sleep(0.2)
        found = f"{self.place.stacks(self.place.rank).parent}/stacks-{self.place.start}-*.txt"
        says = f"no progress for {silent:.0f} s (limit {self.limit_s:.0f} s); stacks in {found}"
        says += f"; no answer from rank {', '.join(map(str, mute))}" if mute else ""
        _log.error("hang: %s", says)
        here = current_allocation()
        attempt = Attempt(
            self.place.attempt, here.job_id or "local", here.node, os.getpid(), self.place.element
        )
        code, reason = TransientError.exit_code, f"hang: {says}"
        end_attempt(self.place.directory, attempt, self._progress(), code, reason, HANG)
        self._go()

    def _answer(self, over: threading.Event) -> None:
        """Write the stacks, and leave once whoever noticed has had the time to say so."""
        if not self.place.stacks(self.place.rank).exists():
            _log.error("hang: %s", self.place.mark.read_text().strip())
            self._dump()
        if not over.wait(2 * self._limits.answers_within_s):
            self._go()

    def _dump(self) -> None:
        with self.place.stacks(self.place.rank).open("w") as file:
            print(f"host {current_allocation().node} process {os.getpid()}", file=file, flush=True)
            faulthandler.dump_traceback(file, all_threads=True)
            if self.more is not None:
                print(self.more(), file=file)

    def _go(self) -> None:
        sys.stderr.flush()
        sys.stdout.flush()
        self._leave(TransientError.exit_code)


class _Agreement(Protocol):
    def agree(self) -> StopReason | None:
        """The reason to interrupt the work now."""


@dataclass(frozen=True)
class WatchedStop:
    """A stop request whose every question is a sign of progress.

    Loops ask at each step, each image of a grid, each boundary where all ranks meet, so nothing
    else has to be told that they move.
    """

    stop: _Agreement
    watchdog: Watchdog

    def agree(self) -> StopReason | None:
        """The reason to interrupt the work now, as `StopRequest.agree`."""
        self.watchdog.beat()
        return self.stop.agree()
