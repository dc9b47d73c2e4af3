"""Attempts: one row when a stage starts working and one when it stops, with the reason (P5)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.documents import json_rows
from hpc.errors import CrashLoopError, TransientError, is_disk_full
from hpc.store.rundir import now

CRASH_LIMIT = 3
SIGNALLED = 128
"""Exit codes from here on encode the signal that ended the attempt."""
KILLED = SIGNALLED + 9
"""Exit code of an attempt that wrote no end row."""
HANG = "HANG"
"""Value of `stop` in the end row of an attempt that a watchdog ended."""


@dataclass(frozen=True)
class Attempt:
    """One start of a stage: its number, and where it runs."""

    number: int
    job: str
    host: str
    pid: int
    element: int | None = None
    """Array element it belongs to; each element counts its own attempts."""


def attempts_file(directory: Path) -> Path:
    """The append-only list of attempts of a stage directory."""
    return directory / "attempts.jsonl"


def read_attempts(directory: Path) -> list[dict[str, Any]]:
    """Rows of the attempts file, oldest first; lines truncated or damaged are skipped."""
    path = attempts_file(directory)
    if not path.exists():
        return []
    return [row for row in json_rows(path) if _is_row(row)]


_START = {"job": str, "host": str, "pid": int, "from": int}
_END = {"to": int, "exit": int, "reason": str}


def _is_row(row: Mapping[str, Any]) -> bool:
    """Whether a JSON object is the start or the end row of an attempt."""
    if type(row.get("attempt")) is not int or not isinstance(row.get("element"), int | None):
        return False
    return any(
        all(type(row.get(name)) is kind for name, kind in fields.items())
        for fields in (_START, _END)
    )


def rows_of_element(rows: Sequence[dict[str, Any]], element: int | None) -> list[dict[str, Any]]:
    """Rows of one array element; those of the stage as a whole for None."""
    return [row for row in rows if row.get("element") == element]


def last_failure(rows: Sequence[dict[str, Any]]) -> str | None:
    """How the newest attempt failed; None if it is running or succeeded."""
    newest = max((row["attempt"] for row in rows), default=-1)
    ends = [row for row in rows if row["attempt"] == newest and "to" in row]
    if not ends or ends[-1]["exit"] == 0:
        return None
    return f"attempt {newest} exit={ends[-1]['exit']}: {ends[-1]['reason']}"


def begin_attempt(
    directory: Path, progress: int, *, force: bool = False, element: int | None = None
) -> Attempt:
    """Record a new attempt that starts from `progress` (shards done or step), and return it.

    Earlier attempts that were killed get their end row here, with the progress they made. With
    `force` the attempt starts despite a crash loop whose cause the operator has fixed.

    Raises:
        CrashLoopError: the last attempts all made no progress; the message has the last reason.
    """
    rows = rows_of_element(read_attempts(directory), element)
    number = 1 + max((row["attempt"] for row in rows), default=-1)
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_LOCAL_JOB_ID") or "local"
    attempt = Attempt(number, job, socket.gethostname(), os.getpid(), element)
    for killed in _unfinished(rows):
        end_attempt(directory, killed, progress, KILLED, "killed: no end row was written")
    if not force and (loop := crash_loop(directory, element)):
        raise CrashLoopError(loop)
    row: dict[str, Any] = {"attempt": number, "job": job, "host": attempt.host}
    row |= {"pid": attempt.pid, "restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0)}
    row |= {"started": now(), "from": progress} | _element(element)
    _append(directory, {**row, "forced": True} if force else row)
    return attempt


def _unfinished(rows: Sequence[dict[str, Any]]) -> list[Attempt]:
    ended = {row["attempt"] for row in rows if "to" in row}
    return [
        Attempt(row["attempt"], row["job"], row["host"], row["pid"], row.get("element"))
        for row in rows
        if "from" in row and row["attempt"] not in ended
    ]


def _element(element: int | None) -> dict[str, int]:
    return {} if element is None else {"element": element}


def end_attempt(
    directory: Path,
    attempt: Attempt,
    progress: int,
    exit_code: int,
    reason: str,
    stop: str | None = None,
) -> None:
    """Record how `attempt` ended and at which progress; `stop` names the stop request, if any."""
    row = {"attempt": attempt.number, "ended": now(), "to": progress, **_element(attempt.element)}
    stopped = {} if stop is None else {"stop": stop}
    _append(directory, {**row, "exit": exit_code, "reason": reason, **stopped})


def _append(directory: Path, row: Mapping[str, Any]) -> None:
    path = attempts_file(directory)
    line = (json.dumps(row, sort_keys=True) + "\n").encode()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # One write per line to an O_APPEND file: lines of concurrent attempts never interleave.
        with path.open("ab", buffering=0) as file:
            file.write(b"\n" + line if _is_torn(path) else line)
    except OSError as error:
        if is_disk_full(error):
            raise TransientError(f"no space left for {path}; free space, then resume") from error
        raise


def _is_torn(path: Path) -> bool:
    """Whether the last line lacks its newline; the next one would be appended to it and lost."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read(1) not in (b"", b"\n")


def crash_loop(
    directory: Path, element: int | None = None, *, killed: int | None = None
) -> str | None:
    """A message if the last attempts are a crash loop; None while another attempt is allowed.

    Counts attempts without progress, not requeues. A failure counts 1, and so does a walltime used
    up without progress. An attempt that was killed (lost node, out of memory) counts 0.5: the cause
    may be external, but not six times in a row. Preemptions and stops by a person do not count.

    Args:
        directory: of the stage.
        element: array element.
        killed: attempt known to have been killed, which has no end row yet.
    """
    rows = rows_of_element(read_attempts(directory), element)
    starts = {row["attempt"]: row for row in rows if "from" in row}
    ends = {row["attempt"]: row for row in rows if "to" in row}
    if killed is not None and killed not in ends:
        lost = {"to": starts[killed]["from"], "exit": KILLED, "reason": "killed"}
        ends[killed] = lost
    counted: list[dict[str, Any]] = []
    for number in sorted(starts, reverse=True):
        end = ends.get(number)
        if end is not None and end["to"] != starts[number]["from"]:
            break
        if end is not None and _weight(end) > 0:
            counted.append(end)
        if starts[number].get("forced"):
            break
    if sum(map(_weight, counted)) < CRASH_LIMIT:
        return None
    where = str(directory) if element is None else f"{directory} element {element}"
    return (
        f"{where}: {len(counted)} attempts in a row made no progress, the last ended with "
        f"{counted[0]['reason']!r}; fix the cause, then `sarhpc resume {directory.parent} --force`"
    )


def _weight(end: Mapping[str, Any]) -> float:
    if end["exit"] == 0:
        return 1.0 if end.get("stop") == "DEADLINE" else 0.0
    if end["exit"] == KILLED:
        return 0.5
    return 1.0 if end["exit"] < SIGNALLED else 0.0
