"""A watchdog in every process: a job that hangs writes its stacks, ends and is requeued.

Ranks that wait for each other in a collective wait for ever when one of them is gone. Here each
process records its progress; the first to see none for too long creates a marker file, all
processes write the stacks of all their threads, and the job ends with one line that names the ranks
that did not respond. The job's script then requeues it, unless it is in a crash loop.

The heartbeat files carry the time of the last progress, not of the last write: the file of a
process that hangs looks old.
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
from hpc.store.lease import Lease

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HangLimits:
    """Time without progress after which a process counts as hanging, and polling intervals."""

    startup_s: float = 3600.0
    """Limit before the first progress, while models are loaded and indexes read."""
    min_s: float = 600.0
    """Least limit afterwards; a save on a slow file system must fit in."""
    factor: float = 20.0
    """Limit afterwards as a multiple of the median interval between two signs of progress."""
    max_s: float = 4 * 3600.0
    """Largest limit afterwards: under the timeout of a collective, which would end the ranks
    without their stacks."""
    write_every_s: float = 15.0
    """Interval between two heartbeat files."""
    poll_s: float = 2.0
    """Interval between two checks."""
    response_s: float = 15.0
    """Time that the other processes have to write their stacks."""


@dataclass(frozen=True)
class WatchedProcess:
    """The process that a watchdog watches, and its files in the stage's directory."""

    directory: Path
    """Directory of the stage."""
    rank: int = 0
    world: int = 1
    attempt: int = 0
    element: int | None = None
    lease: Lease | None = None
    """Lease under which it records how it ended; None on ranks that hold none."""

    @property
    def label(self) -> str:
        """Name of this process in file names."""
        return f"r{self.rank:05d}" if self.element is None else f"e{self.element:05d}"

    @property
    def heartbeat(self) -> Path:
        """Its heartbeat file."""
        return self.directory / "heartbeat" / f"{self.label}.json"

    def stacks(self, rank: int) -> Path:
        """File for the stacks of a rank of the same start."""
        label = f"r{rank:05d}" if self.element is None else self.label
        return self.directory / "logs" / f"stacks-{self.start}-{label}.txt"

    @property
    def hang_marker(self) -> Path:
        """File that marks this start as hanging, with the rank that noticed."""
        what = "" if self.element is None else f"-{self.label}"
        return self.directory / "heartbeat" / f".hang-{self.start}{what}"

    @property
    def start(self) -> str:
        """Identifier unique to this start of this job."""
        here = current_allocation()
        return here.name if here.job_id is not None else f"attempt-{self.attempt}"


class Watchdog:
    """Watches one process from a thread of its own; `watching` starts and ends it."""

    def __init__(
        self,
        process: WatchedProcess,
        progress: Callable[[], int],
        limits: HangLimits | None = None,
        exit_process: Callable[[int], object] = os._exit,
    ) -> None:
        """Watch a process.

        Args:
            process: the process.
            progress: gives the attempt's progress for its end row.
            limits: time limits.
            exit_process: ends the process with an exit code.
        """
        self.process = process
        self._progress = progress
        self.extra_stacks: Callable[[], str] | None = None
        """Gives the stacks of other processes that this one is responsible for."""
        self._limits = limits or HangLimits()
        self._exit_process = exit_process
        self._began = self._last = time.monotonic()
        self._beats = 0
        self._pauses: collections.deque[float] = collections.deque(maxlen=50)
        self._written = float("-inf")

    def beat(self) -> None:
        """Record progress; cheap enough for every step."""
        now = time.monotonic()
        if self._beats:
            self._pauses.append(now - self._last)
        self._last = now
        self._beats += 1

    @property
    def limit_s(self) -> float:
        """Current limit of the time without progress, s."""
        if not self._pauses:
            return self._limits.startup_s
        usual = min(self._limits.factor * statistics.median(self._pauses), self._limits.max_s)
        return max(self._limits.min_s, usual)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watchdog]:
        """Watch while the block runs."""
        over = threading.Event()
        self._began = self._last = time.monotonic()
        for folder in (self.process.heartbeat.parent, self.process.stacks(0).parent):
            folder.mkdir(parents=True, exist_ok=True)
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True, name="watchdog")
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()
            self.process.heartbeat.unlink(missing_ok=True)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(self._limits.poll_s):
            try:
                self._write_heartbeat()
                silent = time.monotonic() - self._last
                if silent > self.limit_s and self._claim(silent):
                    self._end_all(silent)
                elif self.process.hang_marker.exists():
                    self._dump_and_wait(over)
            except OSError as error:
                # A short outage of the file system must not end the watchdog.
                _log.warning("watchdog of rank %d: %s", self.process.rank, error)

    def _write_heartbeat(self) -> None:
        if self._last <= self._written or not self._beats:
            return
        if time.monotonic() - self._written < self._limits.write_every_s:
            return
        here, temporary = current_allocation(), temporary_path(self.process.heartbeat)
        temporary.touch()
        # By the clock of the file system, as a reader compares it with other files there.
        seen = temporary.stat().st_mtime - (time.monotonic() - self._last)
        document = {
            "schema": "sarhpc.heartbeat/1",
            "rank": self.process.rank,
            "element": self.process.element,
            "attempt": self.process.attempt,
            "job": here.job_id,
            "restart": here.restart,
            "host": here.node,
            "pid": os.getpid(),
            "beats": self._beats,
            "seconds": round(statistics.median(self._pauses), 4) if self._pauses else None,
            "at": datetime.datetime.fromtimestamp(seen, datetime.UTC).strftime("%FT%TZ"),
        }
        # Not fsynced on purpose: worthless after a crash, and rewritten within seconds.
        temporary.write_text(json.dumps(document, sort_keys=True) + "\n")
        os.utime(temporary, (seen, seen))
        os.replace(temporary, self.process.heartbeat)
        self._written = time.monotonic()

    def _claim(self, silent: float) -> bool:
        """Create the marker file; False if another process was first."""
        try:
            descriptor = os.open(
                self.process.hang_marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
            )
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(f"rank {self.process.rank}: no progress for {silent:.0f} s\n")
        return True

    def _end_all(self, silent: float) -> None:
        """Collect the stacks of all processes, record the hang, and end this process."""
        self._dump()
        ranks = (
            [self.process.rank] if self.process.element is not None else range(self.process.world)
        )
        until = time.monotonic() + self._limits.response_s
        while True:
            silent_ranks = [rank for rank in ranks if not self.process.stacks(rank).exists()]
            if not silent_ranks or time.monotonic() >= until:
                break
            time.sleep(0.2)
        found = f"{self.process.stacks(self.process.rank).parent}/stacks-{self.process.start}-*.txt"
        message = f"no progress for {silent:.0f} s (limit {self.limit_s:.0f} s); stacks in {found}"
        if silent_ranks:
            message += f"; no answer from rank {', '.join(map(str, silent_ranks))}"
        _log.error("hang: %s", message)
        here = current_allocation()
        attempt = Attempt(
            self.process.attempt,
            here.job_id or "local",
            here.node,
            os.getpid(),
            self.process.element,
        )
        code, reason = TransientError.exit_code, f"hang: {message}"
        # A process that was stopped for minutes looks hanging when it continues.
        if self.process.lease is None or self.process.lease.is_held():
            end_attempt(self.process.directory, attempt, self._progress(), code, reason, HANG)
        self._exit()

    def _dump_and_wait(self, over: threading.Event) -> None:
        """Write the stacks, and exit once the process that noticed has had time to record it."""
        if not self.process.stacks(self.process.rank).exists():
            _log.error("hang: %s", self.process.hang_marker.read_text().strip())
            self._dump()
        if not over.wait(2 * self._limits.response_s):
            self._exit()

    def _dump(self) -> None:
        with self.process.stacks(self.process.rank).open("w") as file:
            print(f"host {current_allocation().node} process {os.getpid()}", file=file, flush=True)
            faulthandler.dump_traceback(file, all_threads=True)
            if self.extra_stacks is not None:
                print(self.extra_stacks(), file=file)

    def _exit(self) -> None:
        sys.stderr.flush()
        sys.stdout.flush()
        self._exit_process(TransientError.exit_code)


class _Agreement(Protocol):
    def agree(self) -> StopReason | None:
        """The reason to interrupt the work now."""

    def agreed(self, urgency: int) -> StopReason | None:
        """The same, by the largest urgency of all ranks."""

    def urgency(self) -> int:
        """What this rank knows."""


@dataclass(frozen=True)
class WatchedStop:
    """A stop request that counts every poll as progress.

    Loops poll at each step, each image of a grid and each boundary where all ranks meet, so they
    need not report their progress separately.
    """

    stop: _Agreement
    watchdog: Watchdog

    def agree(self) -> StopReason | None:
        """The reason to interrupt the work now, as `StopRequest.agree`."""
        self.watchdog.beat()
        return self.stop.agree()

    def agreed(self, urgency: int) -> StopReason | None:
        """The same, as `StopRequest.agreed`."""
        self.watchdog.beat()
        return self.stop.agreed(urgency)

    def urgency(self) -> int:
        """As `StopRequest.urgency`."""
        return self.stop.urgency()
