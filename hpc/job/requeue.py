"""Coming back: a job that stopped before its work was done queues itself again (P4, P5).

Three ways lead here. After a clean stop rank 0 asks Slurm from inside the job. After a failure that
may pass it does the same, as long as the attempts have not been a crash loop. And when the ranks
were killed before anyone could ask, the job's script runs this module once srun has ended.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpc.cluster.allocation import current_allocation
from hpc.errors import (
    ConfigError,
    CrashLoopError,
    DataError,
    HpcError,
    IncompleteError,
    NumericalError,
    RunInUseError,
    StopRequestedError,
    VerificationError,
)
from hpc.store.attempts import HANG, crash_loop, read_attempts, rows_of_element

log = logging.getLogger(__name__)

_HOPELESS = (
    ConfigError,
    CrashLoopError,
    DataError,
    IncompleteError,
    NumericalError,
    RunInUseError,
    VerificationError,
)


@dataclass(frozen=True)
class Comeback:
    """How this job comes back."""

    mode: str = "none"
    """`scontrol` (asks for itself), `chain` (a successor waits in the queue) or `none`."""
    job_id: str | None = None
    """Slurm's id of this very job; None outside Slurm."""
    _asking: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _asked: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def possible(self) -> bool:
        """Whether this job can ask for itself."""
        return self.mode == "scontrol" and self.job_id is not None

    def ask(self, why: str) -> None:
        """Queue this job again, once; Slurm ends what is left of it. Only says so where it cannot.

        Raises:
            TransientError: Slurm does not answer, after retries; `resume` starts the job again.
        """
        from hpc.cluster.bad_nodes import requeue_elsewhere

        if self.possible and self.job_id is not None:
            # The last resort and the end of the work may both come to it, in threads of their own.
            with self._asking:
                if self._asked.is_set():
                    return
                log.info("requeue job=%s: %s", self.job_id, why)
                sys.stderr.flush()
                requeue_elsewhere(self.job_id)
                self._asked.set()
        elif self.mode == "chain":
            log.info("the successor of job=%s goes on: %s", self.job_id, why)
        else:
            log.info("not requeued here: %s", why)


def may_pass(error: BaseException) -> bool:
    """Whether the same job may end better the next time: trouble of the machine, not of its input.

    What a person asked for, what is wrong with configuration, data or numbers, and a crash loop
    would all end the same way again.
    """
    return isinstance(error, Exception) and not isinstance(error, (*_HOPELESS, StopRequestedError))


def comes_back(error: BaseException, directory: Path, element: int | None = None) -> str | None:
    """Why the job that ended with `error` is to be queued again; None if it is not.

    Args:
        error: what ended the work.
        directory: of the stage; its attempts say whether another try makes sense.
        element: array element.
    """
    if isinstance(error, StopRequestedError):
        return str(error) if error.requeue else None
    if not may_pass(error):
        return None
    loop = crash_loop(directory, element)
    if loop is not None:
        log.error("not requeued: %s", loop)
        return None
    return f"{type(error).__name__}: {error}"


def out_of_time(error: BaseException, comeback: Comeback) -> str | None:
    """Why a job that was told to end (SIGTERM) is to be queued again: its time limit; or None.

    A limit that somebody shortened ends a job without the warning it was to get, and Slurm queues
    no such job again. A cancelled job hears the same signal and must stay away, so Slurm is asked.
    """
    told_to_end = isinstance(error, StopRequestedError) and error.reason == "TERMINATE"
    if not told_to_end or not comeback.possible or comeback.job_id is None:
        return None
    from hpc.cluster import slurm

    try:
        found = slurm.queue([comeback.job_id], retries=1)
    except HpcError as unknown:
        log.warning("whether this job was cancelled or out of time is unknown: %s", unknown)
        return None
    return "its time limit" if any(job.reason == "TimeLimit" for job in found) else None


@contextlib.contextmanager
def last_resort(
    comeback: Comeback, ends: float | None, hopeless: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """Queue the job again shortly before `ends`, s since the epoch, if the block still runs.

    A job that reaches its time limit is not requeued by Slurm. Work that never looks up, or hangs
    in a save, then loses what came after its last checkpoint and nothing more.

    Args:
        comeback: how the job comes back.
        ends: when it is too late; None while unknown.
        hopeless: asked then for why the job must not come back, such as a crash loop that the
            block is about to find as well.
    """
    if ends is None or not comeback.possible:
        yield
        return
    over = threading.Event()

    def _watch() -> None:
        if over.wait(max(ends - time.time(), 0.0)):
            return
        if (why := hopeless()) is not None:
            log.error("not requeued: %s", why)
            return
        try:
            comeback.ask("the time limit is here and the work has not stopped")
        except HpcError as error:
            log.error("not requeued: %s", error)

    threading.Thread(target=_watch, daemon=True, name="last-resort").start()
    try:
        yield
    finally:
        over.set()


def afterword(directory: Path) -> str | None:
    """Why the job whose step has failed is to be queued again, asked by its own script.

    Only if its attempt at the stage in `directory` left no last word, as then no rank lived to
    decide, or if its last word is a watchdog's, which cannot ask. Whatever else stands in
    `attempts.jsonl` was decided by rank 0.
    """
    here = current_allocation()
    rows = read_attempts(directory)
    mine = [row for row in rows if row.get("job") == here.job_id and "from" in row]
    if here.job_id is None or not mine or mine[-1].get("restart", 0) != here.restart:
        return None
    number, element = mine[-1]["attempt"], mine[-1].get("element")
    of_it = [row for row in rows_of_element(rows, element) if row["attempt"] == number]
    ends = [row for row in of_it if "to" in row]
    if ends and ends[-1].get("stop") != HANG:
        return None
    if (loop := crash_loop(directory, element, killed=number)) is not None:
        log.error("not requeued: %s", loop)
        return None
    return ends[-1]["reason"] if ends else f"attempt {number} at {directory} was killed"


def main(words: Sequence[str] | None = None) -> int:
    """Queue the job this runs in again if its ranks were killed; always ends well."""
    from hpc.cluster import slurm

    parser = argparse.ArgumentParser(prog="hpc.resilience.requeue", description=main.__doc__)
    parser.add_argument("directory", type=Path, help="directory of the stage in its run")
    told = parser.parse_args(words)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    why = afterword(told.directory)
    job_id = current_allocation().job_id
    if why is None or job_id is None:
        return 0
    try:
        # A job that somebody cancelled is no longer RUNNING, and stays cancelled.
        if [job.state for job in slurm.queue([job_id])] == ["RUNNING"]:
            Comeback("scontrol", job_id).ask(why)
    except HpcError as error:
        log.error("not requeued: %s", error)
    return 0
