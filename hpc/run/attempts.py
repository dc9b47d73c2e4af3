"""Attempts: one line when a stage starts working and one when it stops, and why (P5)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.errors import HpcError, TransientError, is_disk_full
from hpc.run.rundir import now

CRASH_LIMIT = 3
SIGNALLED = 128
"""Exit codes from here on name the signal that ended the attempt."""


@dataclass(frozen=True)
class Attempt:
    """One start of a stage: its number, and where it runs."""

    number: int
    job: str
    host: str
    pid: int


def attempts_file(directory: Path) -> Path:
    """The append-only list of attempts of a stage directory."""
    return directory / "attempts.jsonl"


def read_attempts(directory: Path) -> list[dict[str, Any]]:
    """Lines of the attempts file, oldest first; a line torn by a crash is passed over."""
    path = attempts_file(directory)
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def last_trouble(rows: list[dict[str, Any]]) -> str | None:
    """How the newest attempt ended, if it did and not well; None otherwise."""
    newest = max((row["attempt"] for row in rows), default=-1)
    ends = [row for row in rows if row["attempt"] == newest and "to" in row]
    if not ends or ends[-1]["exit"] == 0:
        return None
    return f"attempt {newest} exit={ends[-1]['exit']}: {ends[-1]['reason']}"


def begin_attempt(directory: Path, progress: int, *, force: bool = False) -> Attempt:
    """Note a new attempt that starts from `progress` (shards done or step), and return it.

    `force` is the operator's word that the cause of a crash loop is mended.

    Raises:
        HpcError: the last `CRASH_LIMIT` attempts all ended where they began; says how they ended.
    """
    rows = read_attempts(directory)
    if not force:
        refuse_crash_loop(directory, rows)
    number = 1 + max((row["attempt"] for row in rows), default=-1)
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_LOCAL_JOB_ID") or "local"
    attempt = Attempt(number, job, socket.gethostname(), os.getpid())
    row = {"attempt": number, "job": job, "host": attempt.host, "pid": attempt.pid}
    _append(directory, {**row, "started": now(), "from": progress})
    return attempt


def end_attempt(
    directory: Path, attempt: Attempt, progress: int, exit_code: int, reason: str
) -> None:
    """Note how `attempt` ended and at which progress."""
    row = {"attempt": attempt.number, "ended": now(), "to": progress}
    _append(directory, {**row, "exit": exit_code, "reason": reason})


def _append(directory: Path, row: Mapping[str, Any]) -> None:
    path = attempts_file(directory)
    line = (json.dumps(row, sort_keys=True) + "\n").encode()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # One write of one line to an O_APPEND file: concurrent attempts never mix their lines.
        with path.open("ab", buffering=0) as file:
            file.write(b"\n" + line if _is_torn(path) else line)
    except OSError as error:
        if is_disk_full(error):
            raise TransientError(f"no space left for {path}; free some, then resume") from error
        raise


def _is_torn(path: Path) -> bool:
    """Whether the last line has no end; the next one would be lost behind it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read(1) not in (b"", b"\n")


def refuse_crash_loop(directory: Path, rows: list[dict[str, Any]]) -> None:
    """Raise when the last attempts made no progress, counting attempts and not requeues.

    An attempt without an end line was killed, one with an exit code above 128 ended by a signal.
    Both are free: the cause is outside.
    """
    starts = {row["attempt"]: row["from"] for row in rows if "from" in row}
    ends = {row["attempt"]: row for row in rows if "to" in row}
    last = sorted(starts)[-CRASH_LIMIT:]
    if len(last) < CRASH_LIMIT or any(n not in ends for n in last):
        return
    failed = [
        ends[n] for n in last if 0 < ends[n]["exit"] < SIGNALLED and ends[n]["to"] == starts[n]
    ]
    if len(failed) == CRASH_LIMIT:
        raise HpcError(
            f"{directory}: {CRASH_LIMIT} attempts in a row made no progress, the last ended with "
            f"{failed[-1]['reason']!r}; mend the cause, then `sarhpc resume --force`"
        )
