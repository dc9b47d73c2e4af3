"""Jobs of this machine: which of them live, by process.

A driver that is between two stages holds no lease. `RUN/logs/job-<pid>.json` names its process, so
that `status` and `resume` see it; a process that cannot be known here counts as ended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hpc.documents import built, read_json
from hpc.publish import publish_json
from hpc.store.identity import Identity, is_alive, process_identity
from hpc.store.rundir import RunDir


@dataclass(frozen=True)
class LocalJob:
    """One job of this machine: its controlling process."""

    what: str
    """The stage, or `line:FIRST:LAST`."""
    process: Identity
    root: str
    """Directory of its run: a copy of the run has the record too, and not the process."""
    stopped: bool = False
    """Whether an operator's stop was in force while it ran: it ends, or has ended."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def host(self) -> str:
        """Name of its host."""
        return self.process.host

    @property
    def alive(self) -> bool:
        """Whether its process runs here."""
        return is_alive(self.process) is True


def record_local_job(run: RunDir, pid: int, what: str) -> None:
    """Record the controlling process of a job that was just started; ended ones are forgotten."""
    for path, job in _read(run).items():
        if is_alive(job.process) is False:
            path.unlink(missing_ok=True)
    process = process_identity(pid)
    if process is not None:
        _publish(run, LocalJob(what, process, str(run.root)))


def live_local_jobs(run: RunDir) -> list[LocalJob]:
    """The jobs of this machine whose processes run, without this process and its parents."""
    return [job for job in _read(run).values() if job.alive and job.pid not in _own_processes()]


def newest_local_job(run: RunDir) -> str | None:
    """What the job of this machine was to do that was started last, ended or not; None if none."""
    # Not by the times of the files: a stop rewrites them, and another command may remove one now.
    newest = max(_read(run).values(), key=lambda job: job.process.born or 0.0, default=None)
    return None if newest is None else newest.what


def mark_local_jobs_stopped(run: RunDir) -> None:
    """Record that the live jobs received a stop, before the stop is removed."""
    for job in live_local_jobs(run):
        _publish(run, replace(job, stopped=True))


def _own_processes() -> set[int]:
    import psutil

    return {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}


def _publish(run: RunDir, job: LocalJob) -> None:
    publish_json(run.root / "logs" / f"job-{job.pid}.json", asdict(job))


def _read(run: RunDir) -> Mapping[Path, LocalJob]:
    found: dict[Path, LocalJob] = {}
    for path in sorted((run.root / "logs").glob("job-*.json")):
        try:
            job = built(LocalJob, read_json(path))
        except (OSError, ValueError):
            continue
        if job.root == str(run.root):
            found[path] = job
    return found
