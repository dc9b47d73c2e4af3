"""The attempt of a process: recorded from before its lease and plan to after the seal (P5)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from hpc.errors import (
    CrashLoopError,
    IncompleteError,
    LeaseLostError,
    RunInUseError,
    StopRequestedError,
    TransientError,
    exit_code_of,
)
from hpc.job.stop import StopNow
from hpc.signals import stop_signals_ignored
from hpc.store.attempts import (
    BAD_NODE,
    Attempt,
    compact_attempts,
    end_attempt,
    is_ended,
    open_attempt,
    settle_attempt,
    withdraw_attempt,
)
from hpc.store.lease import lease
from hpc.store.ledger import Ledger

log = logging.getLogger(__name__)


class UpstreamOpenError(IncompleteError):
    """A stage that this one needs is not sealed; nothing was started."""


_NOT_COUNTED = (CrashLoopError, RunInUseError, UpstreamOpenError)
"""Ends of a start that was none: what it would have done was not begun."""


class RecordedAttempt:
    """The attempt of this process, which changes from open to settled under the lease."""

    def __init__(self, directory: Path, attempt: Attempt) -> None:
        self._directory = directory
        self._attempt = attempt
        self._progress: Callable[[], int] | None = None

    @property
    def number(self) -> int:
        """Number of the attempt."""
        return self._attempt.number

    def settle(self, progress: Callable[[], int]) -> None:
        """Note under the lease where the attempt starts from, by `progress`, also used at its end.

        Raises:
            CrashLoopError: the budget of attempts without progress is exhausted.
        """
        self._progress = progress
        self._attempt = settle_attempt(self._directory, self._attempt, self._reached())

    def _reached(self) -> int:
        """Progress now; that of the start where a damaged plan or folder does not tell."""
        try:
            if self._progress is not None:
                return self._progress()
        except Exception as error:
            log.warning("progress of %s is unknown: %s", self._directory, error)
        return int(self._attempt.start["from"])

    def end(self, error: BaseException | None) -> None:
        """Write the end row, or withdraw the attempt if `error` says that it never was one.

        An end row that a watchdog or the process that took over has written stays: it is the cause.
        Without its lease this process writes nothing; who took it over has written the row.
        """
        if isinstance(error, LeaseLostError):
            return
        if isinstance(error, _NOT_COUNTED):
            withdraw_attempt(self._directory, self._attempt)
            return
        if is_ended(self._directory, self._attempt):
            return
        code, reason, stop = _ending(error)
        end_attempt(self._directory, self._attempt, self._reached(), code, reason, stop)


def _ending(error: BaseException | None) -> tuple[int, str, str | None]:
    """Exit code, reason and stop request of an attempt that ended with `error`."""
    if error is None:
        return 0, "done", None
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, StopNow):
        return 0, text, error.reason.name
    stop = error.reason if isinstance(error, StopRequestedError) else None
    from hpc.cluster.health import BadNodeError  # with what asks drivers: not for login verbs

    return exit_code_of(error), text, BAD_NODE if isinstance(error, BadNodeError) else stop


@contextlib.contextmanager
def recorded_attempt(
    directory: Path, element: int | None = None, *, force: bool = False
) -> Iterator[RecordedAttempt]:
    """Record the block as one attempt at the stage in `directory`, however it ends.

    A start that found the stage in use, its upstream open or its budget exhausted is withdrawn.

    Raises:
        OSError: the attempt cannot be recorded; the block has not begun.
        TransientError: so, because the disk is full.
    """
    attempt = RecordedAttempt(directory, open_attempt(directory, force=force, element=element))
    try:
        yield attempt
    except BaseException as error:
        # Once one rank has failed, srun ends the others by SIGTERM: the row comes first.
        with stop_signals_ignored():
            try:
                attempt.end(error)
            except Exception as unwritten:
                log.error("the end of attempt %d was not recorded: %s", attempt.number, unwritten)
        raise
    with stop_signals_ignored():
        attempt.end(None)
        compact_sealed(directory)


def compact_sealed(directory: Path) -> None:
    """Compact the attempts of a stage once it is sealed; another process may do it instead."""
    if not Ledger(directory).sealed or not (directory / "attempts").is_dir():
        return
    try:
        with lease(directory / ".lease-attempts.json"):
            compact_attempts(directory)
    except RunInUseError:
        return
    except (OSError, TransientError) as error:
        # The stage is sealed all the same; the next start on it tries again.
        log.warning("the attempts of %s were not compacted: %s", directory, error)
