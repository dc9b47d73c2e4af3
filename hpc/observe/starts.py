"""Every start of a stage, from accounting or from the attempts: duration, width, outcome."""

from __future__ import annotations

import bisect
import datetime
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc.cluster.profile import Resources
from hpc.job.pipeline import Stage
from hpc.observe.state import seconds_of
from hpc.observe.status import Scheduler
from hpc.store.attempts import KILLED, SIGNALLED, read_attempts
from hpc.store.rundir import RunDir
from hpc.store.submissions import SubmittedJob

WELL = ("completed", "running")
"""Outcomes that lose no work."""
OUTCOMES = ("completed", "running", "requeued", "preempted", "timeout", "node_fail", "cancelled",
            "failed", "killed")  # fmt: skip


@dataclass(frozen=True)
class Start:
    """One start of a job, or an attempt outside a job: duration, width, outcome."""

    stage: str
    job: str
    outcome: str
    began: float
    """Seconds since the epoch."""
    seconds: float
    gpus: int
    cpus: int
    nodes: str = ""


def accounted_starts(
    run: RunDir,
    jobs: Mapping[str, SubmittedJob],
    scheduler: Scheduler,
) -> list[Start]:
    """Every start of every job in Slurm's accounting; empty without accounting."""
    created = str(run.info.get("created", "1970-01-01T00:00:00Z"))
    rows = scheduler.accounting(list(jobs), created)
    starts = []
    for row in rows:
        if not row.started or row.elapsed_s == 0:
            continue
        job = jobs[row.job_id]
        began = datetime.datetime.fromisoformat(row.started).astimezone().timestamp()
        # Some sites do not account for GPUs; then as many as requested were allocated.
        gpus = row.gpus or job.gpus
        outcome = _outcome_named(row.state)
        starts.append(
            Start(job.stage, row.id, outcome, began, row.elapsed_s, gpus, row.cpus, row.nodes)
        )
    return starts


def _outcome_named(state: str) -> str:
    known = {"out_of_memory": "failed", "boot_fail": "node_fail", "deadline": "timeout",
             "resizing": "running", "suspended": "running", "completing": "running",
             "revoked": "cancelled"}  # fmt: skip
    name = state.lower()
    return known.get(name, name if name in OUTCOMES else "failed")


def attempted_starts(run: RunDir, stage: Stage, requested: Resources) -> list[Start]:
    """Every attempt of a stage, with the requested width."""
    rows = read_attempts(run.stage(stage.name))
    ends = {(row["attempt"], row.get("element")): row for row in rows if "to" in row}
    kept = sorted(time for times in kept_times(run, stage).values() for time in times)
    cpus = requested.tasks * requested.cpus_per_task
    starts = []
    for row in rows:
        if "from" not in row:
            continue
        began = seconds_of(row.get("started"))
        outcome, until = _ending(row, ends.get((row["attempt"], row.get("element"))), kept)
        took = max(until - began, 0.0)
        starts.append(
            Start(stage.name, str(row["job"]), outcome, began, took, requested.gpus, cpus)
        )
    return starts


def _ending(
    row: Mapping[str, Any], end: Mapping[str, Any] | None, kept: Sequence[float]
) -> tuple[str, float]:
    """Outcome of an attempt and when it ended; for a killed one, the time of its last progress."""
    began = seconds_of(row.get("started"))
    if end is None and row["host"] == socket.gethostname() and _lives(int(row["pid"]), began):
        return "running", time.time()
    if end is None or end["exit"] == KILLED:
        limit = seconds_of(end.get("ended")) if end else time.time()
        return "killed", last_between(kept, began, limit) or began
    code = int(end["exit"])
    outcome = "completed" if code == 0 else "cancelled" if code >= SIGNALLED else "failed"
    return outcome, seconds_of(end.get("ended"))


def _lives(pid: int, began: float) -> bool:
    """Whether a process of this host lives that has begun an attempt then, s since the epoch."""
    import psutil

    try:
        process = psutil.Process(pid)
        # A later process may have been given the same id; stamps are whole seconds.
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return not is_zombie and float(process.create_time()) < began + 1
    except psutil.NoSuchProcess:
        return False


def kept_times(run: RunDir, stage: Stage) -> dict[str, list[float]]:
    """Times of durable progress, s since the epoch, ascending, by host."""
    if stage.progress_times is not None:
        return {"": sorted(stage.progress_times(run))}
    times: dict[str, list[float]] = {}
    for record in run.ledger(stage.name).records().values():
        times.setdefault(record.host.split(".")[0], []).append(seconds_of(record.finished))
    return {host: sorted(found) for host, found in times.items()}


def times_on_nodes(kept: Mapping[str, list[float]], nodes: str) -> list[float]:
    """The times of progress on those nodes; on all nodes if no host name matches.

    Elements of an array run concurrently: the progress of one does not count for the others.
    """
    from hpc.cluster.slurm import expand_hosts

    mine = [host for host in expand_hosts(nodes) if host.split(".")[0] in kept]
    chosen = [kept[host.split(".")[0]] for host in mine] or list(kept.values())
    return sorted(time for times in chosen for time in times)


def last_between(times: Sequence[float], first: float, last: float) -> float | None:
    """The greatest of the ascending `times` between `first` and `last`; None if there is none."""
    at = bisect.bisect_right(times, last) - 1
    return times[at] if at >= 0 and times[at] >= first else None
