"""Attempts: one row when a stage starts working and one when it stops, with the reason (P5).

Layout: `attempts/stage.jsonl`, or `attempts/e00007.jsonl` for array element 7, each published whole
and only by the processes of that element, so that nothing is appended from several nodes. Sealing
compacts them into one `attempts.jsonl`, the file that versions before 0.2 appended to
(docs/adr/0016).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc.documents import json_rows
from hpc.errors import CrashLoopError
from hpc.publish import publish_text, remove_stale_temporaries
from hpc.shell import quoted
from hpc.store.restarts import BAD_NODE, CRASH_LIMIT, HANG, KILLED, RESTART_LIMIT, SIGNALLED
from hpc.store.restarts import exhausted as restarts_exhausted
from hpc.store.rundir import now

__all__ = [
    "BAD_NODE", "CRASH_LIMIT", "HANG", "KILLED", "RESTART_LIMIT", "SIGNALLED", "Attempt",
    "attempts_file", "begin_attempt", "compact_attempts", "count_starts", "crash_loop",
    "element_attempts", "end_attempt", "is_ended", "last_failure", "open_attempt", "read_attempts",
    "recording_obstacle", "settle_attempt", "withdraw_attempt",
]  # fmt: skip

KEPT = 256
"""Newest attempts kept of one element; more than the budget looks back on."""
KEPT_SEALED = 10_000
"""Attempts kept of a sealed stage, over all its elements; each keeps at least its newest."""
STALE_TEMPORARY_S = 60.0
"""Age from which the file of a killed writer among the attempts is removed."""
_LONGEST_REASON = 2000
_READERS = 16
"""Files read at once: thousands of round trips on a shared disk would delay `status`."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One start of a stage: its number, and where it runs."""

    number: int
    job: str
    host: str
    pid: int
    element: int | None = None
    """Array element it belongs to; each element counts its own attempts."""
    start: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Its start row; empty if another process began it."""


def attempts_file(directory: Path) -> Path:
    """The compacted attempts of a stage directory; before 0.2 those of a stage under way too."""
    return directory / "attempts.jsonl"


def element_file(directory: Path, element: int | None) -> Path:
    """The attempts of one array element, or of the stage as a whole, before sealing."""
    name = "stage" if element is None else f"e{element:05d}"
    return directory / "attempts" / f"{name}.jsonl"


def read_attempts(directory: Path) -> list[Row]:
    """Rows of all attempts of a stage, each element's oldest first; torn lines are skipped."""
    paths = sorted((directory / "attempts").glob("*.jsonl"))
    with ThreadPoolExecutor(_READERS) as readers:
        read = list((readers.map if len(paths) > _READERS else map)(_read_rows, paths))
    return _joined(_read_rows(attempts_file(directory)), [row for rows in read for row in rows])


def element_attempts(directory: Path, element: int | None = None) -> list[Row]:
    """Rows of one array element, oldest first; those of the stage as a whole for None."""
    compacted = [
        row for row in _read_rows(attempts_file(directory)) if row.get("element") == element
    ]
    return _joined(compacted, _read_rows(element_file(directory, element)))


def _joined(compacted: list[Row], newer: list[Row]) -> list[Row]:
    """All rows; an element that was under way when the stage was compacted is in both."""
    rewritten = set(map(_key, newer))
    return [row for row in compacted if _key(row) not in rewritten] + newer


def _key(row: Row) -> tuple[Any, ...]:
    return row.get("element"), row["attempt"], "to" in row


def _read_rows(path: Path) -> list[Row]:
    try:
        return [row for row in json_rows(path) if _is_row(row)]
    except FileNotFoundError:
        return []


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


def count_starts(rows: Iterable[Row]) -> int:
    """Starts of a stage, those whose rows are no longer kept too."""
    newest: dict[int | None, int] = {}
    for row in rows:
        newest[row.get("element")] = max(row["attempt"], newest.get(row.get("element"), -1))
    return sum(number + 1 for number in newest.values())


def last_failure(rows: Sequence[Row]) -> str | None:
    """How the newest attempt failed; None if it is running or succeeded."""
    newest = max((row["attempt"] for row in rows), default=-1)
    ends = [row for row in rows if row["attempt"] == newest and "to" in row]
    if not ends or ends[-1]["exit"] == 0:
        return None
    return f"attempt {newest} exit={ends[-1]['exit']}: {ends[-1]['reason']}"


def recording_obstacle(directory: Path) -> str | None:
    """Why no attempt can be recorded in a stage directory; None if one can, as far as one sees.

    Nothing is written. Folders of another user are not judged: their owner may write there.
    """
    for folder in (directory, directory / "attempts"):
        try:
            mine = folder.stat().st_uid == os.geteuid()
        except OSError:
            continue
        if mine and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            return (
                f"{folder} is no writable folder, so no attempt can be recorded; fix it, then "
                f"`sarhpc resume {quoted(directory.parent)}`"
            )
    return None


def open_attempt(directory: Path, *, force: bool = False, element: int | None = None) -> Attempt:
    """Record a new attempt before anything else is read, from the last known progress.

    Another process may hold the stage: nothing but the row of this attempt changes before
    `settle_attempt`. With `force` the attempt starts despite an exhausted budget whose cause the
    operator has fixed.
    """
    rows = element_attempts(directory, element)
    number = 1 + max((row["attempt"] for row in rows), default=-1)
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_LOCAL_JOB_ID") or "local"
    reached = [row.get("to", row.get("from", 0)) for row in rows]
    row: Row = {"attempt": number, "job": job, "host": socket.gethostname(), "pid": os.getpid()}
    row |= {"restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0), "started": now()}
    row |= {"from": reached[-1] if reached else 0}
    row |= ({} if element is None else {"element": element}) | ({"forced": True} if force else {})
    attempt = Attempt(number, job, row["host"], row["pid"], element, row)
    _publish_start(directory, attempt)
    return attempt


def settle_attempt(directory: Path, attempt: Attempt, progress: int) -> Attempt:
    """`attempt` as of now the only one of its element: it holds the lease and is allowed to work.

    Earlier attempts that were killed get their end row here, with the progress they made.

    Args:
        directory: of the stage.
        attempt: from `open_attempt`.
        progress: shards done or step from which it starts.

    Raises:
        CrashLoopError: the budget of attempts without progress is exhausted; nothing was settled
            for this attempt, which its caller withdraws.
    """
    rows = element_attempts(directory, attempt.element)
    ended = {row["attempt"] for row in rows if "to" in row}
    for row in rows:
        if "from" in row and row["attempt"] not in ended and row["attempt"] != attempt.number:
            killed = Attempt(row["attempt"], row["job"], row["host"], row["pid"], attempt.element)
            end_attempt(directory, killed, progress, KILLED, "killed: no end row was written")
    if not attempt.start.get("forced") and (loop := crash_loop(directory, attempt.element)):
        raise CrashLoopError(loop)
    settled = replace(attempt, start={**attempt.start, "from": progress})
    _publish_start(directory, settled)
    return settled


def begin_attempt(
    directory: Path, progress: int, *, force: bool = False, element: int | None = None
) -> Attempt:
    """Record a new attempt that starts from `progress`; `open_attempt` and `settle_attempt`.

    Raises:
        CrashLoopError: the budget of attempts without progress is exhausted; the message has the
            last reason, and no row is left.
    """
    attempt = open_attempt(directory, force=force, element=element)
    try:
        return settle_attempt(directory, attempt, progress)
    except CrashLoopError:
        withdraw_attempt(directory, attempt)
        raise


def withdraw_attempt(directory: Path, attempt: Attempt) -> None:
    """Remove the start row of `attempt`, which turned out not to be one, and what it created.

    If another process took over meanwhile and wrote its end row, both rows stay.
    """
    if is_ended(directory, attempt):
        return
    path = element_file(directory, attempt.element)
    rows = _read_rows(path)
    left = [row for row in rows if not _is_start(row, attempt) or row["pid"] != attempt.pid]
    if left:
        _publish(path, left)
        return
    path.unlink(missing_ok=True)
    for folder in (path.parent, directory):
        try:
            folder.rmdir()
        except OSError:  # not empty, which is the usual case
            return


def is_ended(directory: Path, attempt: Attempt) -> bool:
    """Whether `attempt` has an end row: of a watchdog, or of the process that took over."""
    rows = element_attempts(directory, attempt.element)
    return any("to" in row and row["attempt"] == attempt.number for row in rows)


def end_attempt(
    directory: Path,
    attempt: Attempt,
    progress: int,
    exit_code: int,
    reason: str,
    stop: str | None = None,
) -> None:
    """Record how `attempt` ended and at which progress; `stop` names the stop request, if any.

    A second end row of the same attempt replaces the first.
    """
    row: Row = {"attempt": attempt.number, "ended": now(), "to": progress}
    row |= {} if attempt.element is None else {"element": attempt.element}
    row |= {"exit": exit_code, "reason": " ".join(reason.split())[:_LONGEST_REASON]}
    row |= {} if stop is None else {"stop": stop}
    path = element_file(directory, attempt.element)
    rows = [r for r in _read_rows(path) if not ("to" in r and r["attempt"] == attempt.number)]
    if attempt.start and not any(_is_start(r, attempt) for r in rows):
        rows.append(dict(attempt.start))  # compacted meanwhile, or lost to a concurrent start
    _publish(path, [*rows, row])


def _publish_start(directory: Path, attempt: Attempt) -> None:
    path = element_file(directory, attempt.element)
    rows = [row for row in _read_rows(path) if not _is_start(row, attempt)]
    _publish(path, [*rows, dict(attempt.start)])


def _is_start(row: Row, attempt: Attempt) -> bool:
    return "from" in row and row["attempt"] == attempt.number


def _publish(path: Path, rows: Sequence[Row]) -> None:
    publish_text(path, _text(_newest(rows, KEPT)))


def _newest(rows: Sequence[Row], kept: int) -> list[Row]:
    """The rows of the newest `kept` attempts of each element."""
    newest: dict[int | None, int] = {}
    for row in rows:
        newest[row.get("element")] = max(row["attempt"], newest.get(row.get("element"), -1))
    return [row for row in rows if row["attempt"] > newest[row.get("element")] - kept]


def _text(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)


def compact_attempts(directory: Path) -> None:
    """Compact the attempts of a sealed stage into one file; idempotent, one process at a time.

    The newest `KEPT_SEALED` are kept, as equally many of each element as possible.
    """
    folder = directory / "attempts"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.jsonl")}
    rows = read_attempts(directory)
    elements = len({row.get("element") for row in rows})
    kept = _newest(rows, max(KEPT_SEALED // max(elements, 1), 1))
    publish_text(attempts_file(directory), _text(kept))
    for path, modified in before.items():
        # An element that ends at this moment has rewritten its file: that one stays.
        if path.stat().st_mtime_ns == modified:
            path.unlink()
    remove_stale_temporaries(folder, STALE_TEMPORARY_S)
    with contextlib.suppress(OSError):  # not empty
        folder.rmdir()


def crash_loop(
    directory: Path, element: int | None = None, *, killed: int | None = None
) -> str | None:
    """A message if no further attempt may begin; None while one is allowed (hpc.store.restarts).

    Args:
        directory: of the stage.
        element: array element.
        killed: attempt known to have been killed, which has no end row yet.
    """
    return exhausted(directory, element, element_attempts(directory, element), killed=killed)


def exhausted(
    directory: Path, element: int | None, rows: Sequence[Row], *, killed: int | None = None
) -> str | None:
    """As `crash_loop`, of rows that were read already."""
    why = restarts_exhausted(rows, killed)
    if why is None:
        return None
    where = str(directory) if element is None else f"{directory} element {element}"
    return f"{where}: {why}; fix the cause, then `sarhpc resume {quoted(directory.parent)} --force`"
