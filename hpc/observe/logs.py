"""The logs of a run: one file per stage, job, task and attempt."""

from __future__ import annotations

import io
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hpc.job.pipeline import Stage, unsealed_stages
from hpc.observe.state import stage_state
from hpc.regular_files import open_regular
from hpc.store.rundir import RunDir

SUFFIXES = (".out", ".err", ".log")
MAX_SHOWN = 2
"""Maximum number of logs of one stage shown by default: rank 0's, and the last one written."""
BATCH = -1
"""Task number of the log of the batch script, with the messages of Slurm and srun."""
_NAME = re.compile(
    r"(?P<job>\d+(_\d+)?)_((?P<task>\d+)(_log|\.a(?P<attempt>\d+))|batch)\.(log|out|err)"
)


@dataclass(frozen=True)
class LogFile:
    """One log: the task that wrote it, in which attempt."""

    stage: str
    """Empty for the log of the process that drives the whole pipeline."""
    path: Path
    job: str
    """Empty if the name has none."""
    task: int
    """Or `BATCH`."""
    attempt: int
    """Restarts of the job before this one."""
    modified: float
    """Time of the last line, s since the epoch."""


def log_files(run: RunDir, stage: str) -> list[LogFile]:
    """Non-empty logs of a stage, oldest first; of the line's driver for ``""``."""
    found = []
    for path in run.logs(stage).glob("*"):
        if path.suffix not in SUFFIXES:
            continue
        facts = path.stat()
        if facts.st_size == 0 or not stat.S_ISREG(facts.st_mode):
            continue
        found.append(_log_file(stage, path, facts.st_mtime))
    return sorted(found, key=lambda file: (file.modified, file.path.name))


def _log_file(stage: str, path: Path, modified: float) -> LogFile:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return LogFile(stage, path, "", 0, 0, modified)
    task = BATCH if match["task"] is None else int(match["task"])
    return LogFile(stage, path, match["job"], task, int(match["attempt"] or 0), modified)


def newest_logs(run: RunDir, stage: str) -> list[LogFile]:
    """The most relevant logs of the newest start of a stage, at most two.

    The first rank's log has priority, then the batch script's, then the last one written.
    """
    files = log_files(run, stage)
    tasks = [f for f in files if f.task != BATCH] or files
    if not tasks:
        return []
    newest = tasks[-1]
    last = [f for f in tasks if (f.job, f.attempt) == (newest.job, newest.attempt)]
    first_rank = [f for f in last if f.task == min(f.task for f in last)]
    slurm = [f for f in files if f.task == BATCH and f.job == newest.job]
    by_worth = {f.path: f for f in [first_rank[-1], *slurm, *reversed(last)]}
    return sorted(list(by_worth.values())[:MAX_SHOWN], key=lambda file: file.modified)


def tail(path: Path, lines: int) -> list[str]:
    """The last `lines` lines of a text file, read from its end."""
    if lines <= 0:
        return []
    block, position, text = 1 << 16, path.stat().st_size, b""
    with open_regular(path) as file:
        while position > 0 and text.count(b"\n") <= lines:
            step = min(block, position)
            position -= step
            file.seek(position)
            text = file.read(step) + text
    return text.decode(errors="replace").splitlines()[-lines:]


def failure_lines(run: RunDir, stage: Stage) -> list[str]:
    """One line per failed shard of a stage, and one for its last attempt if that failed."""
    lines = [
        f"{stage.name} {failure.shard} tries={failure.tries} {failure.error}: {failure.message}"
        for failure in run.ledger(stage.name).failures().values()
    ]
    state = stage_state(run, stage)
    failure = state.failure
    if failure is None and state.state == "LOST":
        where = f"sarhpc logs {run.quoted} --stage {stage.name}"
        failure = f"its last attempt was killed, as no end row was written; see: {where}"
    return [*lines, f"{stage.name} {failure}"] if failure else lines


def failure_cause(run: RunDir, stages: Sequence[Stage]) -> str | None:
    """Why the first unsealed of `stages` failed, in one line; None if it did not."""
    for stage in unsealed_stages(run, stages):
        found = failure_lines(run, stage)
        return found[-1] if found else None
    return None


def log_tails(run: RunDir, stage: str, lines: int) -> Iterator[str]:
    """The last lines of the newest logs of a stage, each preceded by its path."""
    for file in newest_logs(run, stage):
        yield f"==> {file.path}"
        yield from tail(file.path, lines)


class LogFollower:
    """Copies the text appended to log files since the last call."""

    def __init__(self) -> None:
        self._seen: dict[Path, int] = {}
        self._last: Path | None = None

    def skip_existing(self, paths: Iterable[Path]) -> None:
        """Treat the current content of `paths` as copied."""
        self._seen.update({path: path.stat().st_size for path in paths if path.exists()})

    def copy(self, paths: Sequence[Path], out: TextIO, *, named: bool = False) -> bool:
        """Write the new text of `paths` to `out`, each after its path if `named`; False if none."""
        any_new = False
        for path in paths:
            if not path.is_file():
                continue
            with io.TextIOWrapper(open_regular(path), errors="replace") as file:
                file.seek(self._seen.get(path, 0))
                text = file.read()
                self._seen[path] = file.tell()
            if text:
                any_new = True
                if named and path != self._last:
                    out.write(f"==> {path}\n")
                self._last = path
                out.write(text)
        out.flush()
        return any_new


def follow(
    find: Callable[[], list[Path]], *, ended: Callable[[], bool], poll_s: float = 1.0
) -> None:
    """Print text appended to the logs, including new files, until `ended()`."""
    follower = LogFollower()
    follower.skip_existing(find())
    last = False
    while not last:
        last = ended()
        follower.copy(find(), sys.stdout, named=True)
        if not last:
            time.sleep(poll_s)
