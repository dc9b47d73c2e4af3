"""Requeueing: a job that stopped before its work was done queues itself again (P4, P5).

There are three cases. After a clean stop rank 0 calls Slurm from inside the job. After a transient
failure it does the same, unless the attempts are a crash loop. And when the ranks were killed
before they could call Slurm, the job's script runs this module once srun has ended.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.cluster.allocation import Allocation, current_allocation
from hpc.errors import (
    ConfigError,
    CrashLoopError,
    DataError,
    GpuMemoryError,
    HpcError,
    IncompleteError,
    NumericalError,
    RunInUseError,
    StopRequestedError,
    TransientError,
    VerificationError,
)
from hpc.shell import quoted
from hpc.store.attempts import (
    CRASH_LIMIT,
    HANG,
    KILLED,
    RESTART_LIMIT,
    crash_loop,
    element_attempts,
    exhausted,
)
from hpc.store.rundir import RunDir
from hpc.store.submissions import job_ids

log = logging.getLogger(__name__)

_PERMANENT = (
    ConfigError,
    CrashLoopError,
    DataError,
    GpuMemoryError,
    IncompleteError,
    NumericalError,
    RunInUseError,
    VerificationError,
)


@dataclass(frozen=True)
class RequeuePolicy:
    """How this job is requeued."""

    mode: str = "none"
    """`scontrol` (requeues itself), `chain` (a successor waits in the queue) or `none`."""
    job_id: str | None = None
    """Slurm's id of this job; None outside Slurm."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _requested: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def can_requeue(self) -> bool:
        """Whether this job can requeue itself."""
        return self.mode == "scontrol" and self.job_id is not None

    def request(self, why: str) -> None:
        """Requeue this job, once; Slurm ends what is left of it. Only logs where that is not set.

        Raises:
            TransientError: Slurm does not answer, after retries; `resume` starts the job again.
        """
        from hpc.cluster.bad_nodes import requeue_elsewhere

        if self.can_requeue and self.job_id is not None:
            # The deadline thread and the main thread may both get here.
            with self._lock:
                if self._requested.is_set():
                    return
                log.info("requeue job=%s: %s", self.job_id, why)
                sys.stderr.flush()
                requeue_elsewhere(self.job_id)
                self._requested.set()
        elif self.mode == "chain":
            log.info("the successor of job=%s continues: %s", self.job_id, why)
        else:
            log.info("not requeued by this job: %s", why)


def is_transient(error: BaseException) -> bool:
    """Whether the same job may succeed the next time: a fault of the machine, not of its input.

    Stops requested by a person, errors in configuration, data or numerics, and crash loops would
    end the same way again.
    """
    return isinstance(error, Exception) and not isinstance(error, (*_PERMANENT, StopRequestedError))


def requeue_reason(error: BaseException, directory: Path, element: int | None = None) -> str | None:
    """The reason to requeue the job that ended with `error`; None if it must not be.

    Args:
        error: what ended the work.
        directory: of the stage; its attempts decide whether another one makes sense.
        element: array element.
    """
    if isinstance(error, StopRequestedError):
        return str(error) if error.requeue else None
    if not is_transient(error):
        return None
    if (stopped := stopped_for_good(directory, element)) is not None:
        log.error("not requeued: %s", stopped)
        return None
    return f"{type(error).__name__}: {error}"


def stopped_for_good(directory: Path, element: int | None) -> str | None:
    """Why no further start is allowed; by Slurm's own count where the attempts do not tell."""
    try:
        if (loop := crash_loop(directory, element)) is not None:
            return loop
        return _too_many_unrecorded(directory, element_attempts(directory, element))
    except OSError as error:
        log.warning("the attempts in %s cannot be read: %s", directory, error)
    return _too_many_restarts(directory)


def _too_many_unrecorded(directory: Path, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why no further start is allowed after starts of this job that could not be recorded."""
    here = current_allocation()
    if here.job_id is None:
        return None
    mine = [
        row.get("restart", 0) for row in rows if "from" in row and row.get("job") == here.job_id
    ]
    unrecorded = here.restart - max(mine, default=-1)
    if unrecorded < CRASH_LIMIT:
        return None
    return (
        f"the last {unrecorded} starts of job {here.job_id} could not be recorded in {directory}; "
        f"make the folder writable, then `sarhpc resume {quoted(directory.parent)}`"
    )


def _is_of(row: Mapping[str, Any], here: Allocation) -> bool:
    """Whether `row` is the start of this job, not one of its earlier starts."""
    this_start = (here.job_id, here.restart)
    return "from" in row and (row.get("job"), row.get("restart", 0)) == this_start


def _too_many_restarts(directory: Path) -> str | None:
    here = current_allocation()
    if here.restart < RESTART_LIMIT:
        return None
    return (
        f"job {here.job_id} has restarted {here.restart} times and its attempts in {directory} "
        "cannot be read; make the folder readable and writable, then "
        f"`sarhpc resume {quoted(directory.parent)}`"
    )


def time_limit_reason(error: BaseException, requeue_policy: RequeuePolicy) -> str | None:
    """The reason to requeue a job that received SIGTERM: it reached its time limit; or None.

    A limit that was shortened later ends a job without the configured warning, and Slurm does not
    requeue such a job. A cancelled job receives the same signal and must not be requeued, so Slurm
    is queried.
    """
    terminated = isinstance(error, StopRequestedError) and error.reason == "TERMINATE"
    if not terminated or not requeue_policy.can_requeue or requeue_policy.job_id is None:
        return None
    from hpc.cluster import slurm

    try:
        found = slurm.queue([requeue_policy.job_id], retries=1)
    except HpcError as unknown:
        log.warning("cannot tell whether this job was cancelled or timed out: %s", unknown)
        return None
    return "its time limit" if any(job.reason == "TimeLimit" for job in found) else None


@contextlib.contextmanager
def requeue_before_deadline(
    requeue_policy: RequeuePolicy,
    ends: float | None,
    abort_reason: Callable[[], str | None] = lambda: None,
) -> Iterator[None]:
    """Requeue the job shortly before `ends`, s since the epoch, if the block still runs.

    A job that reaches its time limit is not requeued by Slurm. Work that never polls for a stop, or
    hangs in a save, then loses what came after its last checkpoint and nothing more.

    Args:
        requeue_policy: how the job is requeued.
        ends: when to requeue at the latest; None if unknown.
        abort_reason: called then; gives the reason not to requeue, such as a crash loop that the
            block is about to find as well, or None.
    """
    if ends is None or not requeue_policy.can_requeue:
        yield
        return
    over = threading.Event()

    def _watch() -> None:
        if over.wait(max(ends - time.time(), 0.0)):
            return
        if (why := abort_reason()) is not None:
            log.error("not requeued: %s", why)
            return
        try:
            requeue_policy.request("the time limit is reached and the work has not stopped")
        except HpcError as error:
            log.error("not requeued: %s", error)

    threading.Thread(target=_watch, daemon=True, name="requeue-before-deadline").start()
    try:
        yield
    finally:
        over.set()


def requeue_reason_after_kill(directory: Path, code: int | None = None) -> str | None:
    """The reason to requeue the job whose step has failed, for its own script; None for none.

    There is one only if its attempt at the stage in `directory` has no end row, because no rank
    survived to decide, if a watchdog wrote that row, which cannot requeue, or if the row is of a
    transient failure, whose request rank 0 may not have lived to make. Any other end row was
    decided by rank 0. Where the attempts cannot be read, Slurm's count of restarts decides.

    Args:
        directory: of the stage.
        code: exit code of the step; if that says killed, so was a start that has no attempt yet.
    """
    here = current_allocation()
    if here.job_id is None:
        return None
    try:
        element = _element_of(directory, here)
        rows = element_attempts(directory, element)
        if not directory.parent.is_dir():
            raise FileNotFoundError(f"{directory.parent} does not exist on this node")
    except (OSError, VerificationError) as error:
        return _reason_unread(directory, error)
    mine = [row for row in rows if row.get("job") == here.job_id and "from" in row]
    if not mine or not _is_of(mine[-1], here):
        return _killed_before_attempt(here, mine) if code == KILLED else None
    number = mine[-1]["attempt"]
    ends = [row for row in rows if row["attempt"] == number and "to" in row]
    transient = bool(ends) and ends[-1]["exit"] == TransientError.exit_code
    if ends and ends[-1].get("stop") != HANG and not transient:
        return None
    if (loop := exhausted(directory, element, rows, killed=number)) is not None:
        log.error("not requeued: %s", loop)
        return None
    return ends[-1]["reason"] if ends else f"attempt {number} at {directory} was killed"


def _killed_before_attempt(here: Allocation, mine: Sequence[Mapping[str, Any]]) -> str | None:
    """The reason to requeue a job that was killed before it recorded an attempt; not for ever."""
    count = here.restart - max((row.get("restart", 0) for row in mine), default=-1)
    what = f"job {here.job_id} was killed before its attempt began"
    if count >= CRASH_LIMIT:
        log.error("not requeued: %s, %d times in a row; is its memory enough?", what, count)
        return None
    return what


def _element_of(directory: Path, here: Allocation) -> int | None:
    """Number within its stage of the array element that this job is; None for any other job."""
    if here.array_id is None or here.array_index is None:
        return None
    job = job_ids(RunDir(directory.parent)).get(here.array_id)
    return here.array_index + (0 if job is None else job.first)


def _reason_unread(directory: Path, error: Exception) -> str | None:
    if (stopped := _too_many_restarts(directory)) is not None:
        log.error("not requeued: %s", stopped)
        return None
    return f"the attempts in {directory} cannot be read: {error}"


def main(argv: Sequence[str] | None = None) -> int:
    """Requeue the job this runs in if its ranks were killed; the exit code is always 0."""
    from hpc.cluster import slurm

    parser = argparse.ArgumentParser(prog="hpc.resilience.requeue", description=main.__doc__)
    parser.add_argument("directory", type=Path, help="directory of the stage in its run")
    parser.add_argument("code", type=int, nargs="?", help="exit code of its step")
    arguments = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    why = requeue_reason_after_kill(arguments.directory, arguments.code)
    job_id = current_allocation().job_id
    if why is None or job_id is None:
        return 0
    try:
        # A cancelled job is no longer RUNNING, and stays cancelled.
        if [job.state for job in slurm.queue([job_id])] == ["RUNNING"]:
            RequeuePolicy("scontrol", job_id).request(why)
    except HpcError as error:
        log.error("not requeued: %s", error)
    return 0
