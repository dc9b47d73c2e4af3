"""Jobs of this machine: which of them live, by process.

A driver that is between two stages holds no lease. `RUN/logs/job-<pid>.json` names its process, so
that `status` and `resume` see it; a process on another host counts as ended.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.documents import parse_json
from hpc.publish import publish_json
from hpc.store.rundir import RunDir

_BORN_TOLERANCE_S = 1.0


@dataclass(frozen=True)
class LocalJob:
    """One job of this machine: its controlling process."""

    what: str
    """The stage, or `line:FIRST:LAST`."""
    host: str
    pid: int
    born: float
    """Start time of the process, s since the epoch."""
    stopped: bool = False
    """Whether an operator's stop was in force while it ran: it ends, or has ended."""
    root: str = ""
    """Directory of its run: a copy of the run has the record too, and not the process. Empty in
    records of earlier versions."""

    @property
    def alive(self) -> bool:
        """Whether its process runs on this host."""
        born = _start_time(self.pid) if self.host == socket.gethostname() else None
        return born is not None and abs(born - self.born) < _BORN_TOLERANCE_S


def record_local_job(run: RunDir, pid: int, what: str) -> None:
    """Record the controlling process of a job that was just started; ended ones are forgotten."""
    for path, job in _read(run).items():
        if job.host == socket.gethostname() and not job.alive:
            path.unlink(missing_ok=True)
    born = _start_time(pid)
    if born is not None:
        job = LocalJob(what, socket.gethostname(), pid, born, root=str(run.root))
        _publish(run, job)


def live_local_jobs(run: RunDir) -> list[LocalJob]:
    """The jobs of this machine whose processes run, without this process and its parents."""
    return [job for job in _read(run).values() if job.alive and job.pid not in _own_processes()]


def mark_local_jobs_stopped(run: RunDir) -> None:
    """Record that the live jobs received a stop, before the stop is removed."""
    for job in live_local_jobs(run):
        _publish(run, LocalJob(**{**asdict(job), "stopped": True}))


def _own_processes() -> set[int]:
    import psutil

    return {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}


def _publish(run: RunDir, job: LocalJob) -> None:
    publish_json(run.root / "logs" / f"job-{job.pid}.json", asdict(job))


def _read(run: RunDir) -> Mapping[Path, LocalJob]:
    found: dict[Path, LocalJob] = {}
    for path in sorted((run.root / "logs").glob("job-*.json")):
        try:
            document: dict[str, Any] = parse_json(path.read_text())
            job = LocalJob(**document)
        except (OSError, ValueError, TypeError):
            continue
        if job.root in ("", str(run.root)):
            found[path] = job
    return found


def _start_time(pid: int) -> float | None:
    """Start time of a process on this host, s; None if it is gone (a zombie is)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
