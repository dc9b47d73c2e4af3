"""Stopping together: signals, files and a deadline become one decision of all ranks (promise P4).

Why a flag: a save is collective, and ranks receive a signal at different moments or not at all, so
a handler that saved (or logged, or called Slurm) would act alone and at an arbitrary point. Here a
handler only sets a flag; `agree()` combines the flags of all ranks at a step boundary, and all get
the same answer at the same step.

Requests nest: the request of a job covers all of it, and a loop that polls installs its own inside,
which inherits earlier signals and passes on those it received.

Why USR2: NCCL may catch USR1. Slurm sends the signal to every process of the step, so processes
that a rank starts itself, DataLoader workers in particular, must call
`hpc.signals.ignore_stop_signals`; otherwise they die first, and the rank with them before it can
save.
"""

from __future__ import annotations

import enum
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from hpc.job.agreement import RankGroup
from hpc.signals import STOP_SIGNALS

SIGNAL_EARLY_S = 60.0
"""Slurm may send the signal before a time limit so much earlier than requested, s."""

_Handler = Callable[[int, FrameType | None], object] | int | None


class StopReason(enum.IntEnum):
    """Why the ranks interrupt their work; if several apply at once the largest wins.

    The operator takes precedence: a STOP file is an explicit and lasting request, SIGTERM may be a
    person's `scancel`, and only then come the reasons after which the job is requeued.
    """

    SAVE_FILE = 1
    """RUN/SAVE exists: save and continue."""
    DEADLINE = 2
    """The walltime is almost used up, with or without Slurm's SIGUSR2: save and requeue."""
    PREEMPT = 3
    """SIGUSR2 long before the time limit, so from preemption: save and requeue."""
    TERMINATE = 4
    """SIGTERM: save and exit; Slurm decides whether the job runs again."""
    STOP_FILE = 5
    """RUN/STOP exists: save and exit, and stay stopped."""

    @property
    def stops(self) -> bool:
        """Whether the work ends after the save."""
        return self is not StopReason.SAVE_FILE

    @property
    def requeues(self) -> bool:
        """Whether the job requeues itself after the save."""
        return self in (StopReason.PREEMPT, StopReason.DEADLINE)


_REASONS = dict(zip(STOP_SIGNALS, (StopReason.PREEMPT, StopReason.TERMINATE), strict=True))


class StopNow(BaseException):  # an interruption like KeyboardInterrupt, not an error
    """Raised by an urgent request in work that does not poll, such as imports and planning.

    Not an Exception, so that no library handles it as a failure of its own.
    """

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class StopRequest:
    """A request to stop, collected on every rank and agreed on by all.

    Use it as a context manager or with `install` and `uninstall`, from the main thread. Install it
    after anything else that handles the same signals (such as a launcher): the last handler wins.
    """

    def __init__(
        self,
        ranks: RankGroup,
        stop_file: Path | None = None,
        save_file: Path | None = None,
        deadline: float | None = None,
        poll_s: float = 1.0,
        urgent: bool = False,
    ) -> None:
        """Watch for reasons to stop.

        Args:
            ranks: those that must agree.
            stop_file: stop when this file exists; it is never removed here.
            save_file: save when this file exists; removed once agreed on.
            deadline: stop at this moment, in seconds since the epoch.
            poll_s: least time in seconds between two checks of the files. Only rank 0 checks: a
                thousand ranks polling a parallel file system each step would overload it.
            urgent: raise StopNow at the first signal while this request is the innermost, for a
                process that has nothing to save and no other ranks to agree with.
        """
        self._ranks = ranks
        self._stop_file = stop_file
        self._save_file = save_file
        # The clock of a node may be set while it works; the time left does not change by that.
        self._ends = None if deadline is None else time.monotonic() + deadline - time.time()
        self._poll_s = poll_s
        self._urgent = urgent
        self._looked = float("-inf")
        self._signalled = 0
        self._filed = 0
        self._previous: dict[signal.Signals, _Handler] = {}

    @property
    def deadline(self) -> float | None:
        """Time to stop at, seconds since the epoch by the present clock of this node."""
        return None if self._ends is None else time.time() + self._ends - time.monotonic()

    def install(self) -> None:
        """Handle SIGUSR2 and SIGTERM; a second call, or one from another thread, does nothing."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only
        for number in STOP_SIGNALS:
            if number not in self._previous:
                handler = signal.signal(number, self._raise_flag)
                self._previous[number] = handler
                if (outer := _request_behind(handler)) is not None:
                    self._signalled = max(self._signalled, outer._signalled)

    def uninstall(self) -> None:
        """Restore the handlers found by `install`."""
        while self._previous:
            number, handler = self._previous.popitem()
            if (outer := _request_behind(handler)) is not None:
                outer._signalled = max(self._signalled, outer._signalled)
            # None stands for a handler set from C, which Python cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.uninstall()

    def agree(self) -> StopReason | None:
        """The reason to interrupt the work now, the same on every rank; None to go on.

        Collective: every rank calls it at the same step boundary. Costs one all-reduce of eight
        bytes.
        """
        return self.agreed(self._ranks.maximum(self.urgency()))

    def agreed(self, urgency: int) -> StopReason | None:
        """The same, where the largest `urgency` of all ranks is known. Collective.

        For a loop whose ranks exchange numbers anyway: on a GPU a collective of its own would wait
        for everything that was launched.
        """
        if urgency == 0:
            return None
        if self._ranks.rank == 0 and self._save_file is not None:
            # Every reason leads to a save, so a request for one is fulfilled.
            self._save_file.unlink(missing_ok=True)
            self._looked = float("-inf")
        # Rank 0 alone may know when the job ends.
        if urgency == StopReason.PREEMPT and self._ranks.any(self._announced()):
            return StopReason.DEADLINE
        return StopReason(urgency)

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        self._signalled = max(self._signalled, _REASONS[signal.Signals(number)])
        if self._urgent:
            # Only once: cleanup must not be interrupted again.
            self._urgent = False
            preempted = self._signalled == StopReason.PREEMPT
            limit = preempted and self._announced()
            raise StopNow(StopReason.DEADLINE if limit else StopReason(self._signalled))

    def _announced(self) -> bool:
        """Whether a SIGUSR2 now is the one before the time limit: a walltime used up counts."""
        return self._ends is not None and time.monotonic() >= self._ends - SIGNAL_EARLY_S

    def urgency(self) -> int:
        """The reason that this rank knows, as a number; 0 without any."""
        late = self._ends is not None and time.monotonic() >= self._ends
        if self._ranks.rank == 0:
            self._look_at_files()
        return max(self._signalled, self._filed, StopReason.DEADLINE if late else 0)

    def _look_at_files(self) -> None:
        now = time.monotonic()
        if now - self._looked < self._poll_s:
            return
        self._looked = now
        self._filed = 0
        if self._save_file is not None and self._save_file.exists():
            self._filed = StopReason.SAVE_FILE
        if self._stop_file is not None and self._stop_file.exists():
            self._filed = StopReason.STOP_FILE


def interrupt_work() -> None:
    """Stop the work of this process as SIGTERM does, if it has a stop request; from any thread."""
    if _request_behind(signal.getsignal(signal.SIGTERM)) is not None:
        os.kill(os.getpid(), signal.SIGTERM)


def stop_signalled() -> bool:
    """Whether this process received a stop signal; for loops without a stop request."""
    request = _request_behind(signal.getsignal(signal.SIGUSR2))
    return request is not None and request._signalled > 0


def _request_behind(handler: _Handler) -> StopRequest | None:
    """The request that `handler` belongs to, if any."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, StopRequest) else None
