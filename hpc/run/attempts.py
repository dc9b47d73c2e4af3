"""Attempts: one line when a stage starts working and one when it stops, and why (P5)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.errors import HpcError
from hpc.run.rundir import now

CRASH_LIMIT = 3


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
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


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
    directory.mkdir(parents=True, exist_ok=True)
    # One write of one line to an O_APPEND file: concurrent attempts never mix their lines.
    with attempts_file(directory).open("ab", buffering=0) as file:
        file.write((json.dumps(row, sort_keys=True) + "\n").encode())


def refuse_crash_loop(directory: Path, rows: list[dict[str, Any]]) -> None:
    """Raise when the last attempts made no progress, counting attempts and not requeues.

    An attempt without an end line was killed. Killed ones are free: the cause is outside.
    """
    starts = {row["attempt"]: row["from"] for row in rows if "from" in row}
    ends = {row["attempt"]: row for row in rows if "to" in row}
    last = sorted(starts)[-CRASH_LIMIT:]
    if len(last) < CRASH_LIMIT or any(n not in ends for n in last):
        return
    failed = [ends[n] for n in last if ends[n]["exit"] != 0 and ends[n]["to"] == starts[n]]
    if len(failed) == CRASH_LIMIT:
        raise HpcError(
            f"{directory}: {CRASH_LIMIT} attempts in a row made no progress, the last ended with "
            f"{failed[-1]['reason']!r}; mend the cause, then `sarhpc resume --force`"
        )
