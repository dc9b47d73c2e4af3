"""What a run has cost: GPU-hours by stage and outcome, useful and lost, per thousand images.

Slurm's accounting is the truth: GPUs allocated times seconds, over every start of every job, those
that were requeued too. Where there is none the attempts of the run stand in, with the GPUs that
were asked for.

A start that ended well is useful as a whole. Of any other the time until the last progress that
was kept (a shard's record, a step that a checkpoint holds) is useful, and the rest is lost. Time in
the queue costs nothing and is not counted.
"""

from __future__ import annotations

import bisect
import datetime
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc.errors import HpcError
from hpc.run.attempts import KILLED, SIGNALLED, read_attempts
from hpc.run.pipeline import Stage
from hpc.run.rundir import RunDir
from hpc.run.state import seconds_of
from hpc.run.status import Scheduler, cluster_scheduler
from hpc.run.submissions import SubmittedJob, read_submissions

WELL = ("completed", "running")
OUTCOMES = ("completed", "running", "requeued", "preempted", "timeout", "node_fail", "cancelled",
            "failed", "killed")  # fmt: skip


@dataclass(frozen=True)
class Start:
    """One start of a job, or of an attempt without one: how long, how wide, how it ended."""

    stage: str
    job: str
    outcome: str
    began: float
    """Seconds since the epoch."""
    seconds: float
    gpus: int
    cpus: int
    nodes: str = ""


@dataclass(frozen=True)
class Cost:
    """Hours of machines."""

    gpu_h: float = 0.0
    cpu_h: float = 0.0
    useful: float = 0.0
    """The part of `gpu_h` that made what stands on disk; of `cpu_h` where there is no GPU."""
    starts: int = 0

    @property
    def hours(self) -> float:
        """GPU-hours, or CPU-hours where no GPU was used."""
        return self.gpu_h or self.cpu_h

    def __add__(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(
            self.gpu_h + other.gpu_h,
            self.cpu_h + other.cpu_h,
            self.useful + other.useful,
            self.starts + other.starts,
        )


@dataclass(frozen=True)
class CostReport:
    """The cost of a run, stage by stage."""

    run: RunDir
    stages: Mapping[str, Mapping[str, Cost]]
    """Stage -> outcome -> cost; stages without any start are left out."""
    images: int
    """Images of the sealed or growing corpus (`generate`)."""
    source: str
    """`accounting`, or `attempts` where that is not to be had."""
    notes: tuple[str, ...] = field(default=())

    @property
    def total(self) -> Cost:
        """All stages together."""
        return sum((self.of(stage) for stage in self.stages), Cost())

    def of(self, stage: str) -> Cost:
        """All outcomes of a stage together."""
        return sum(self.stages.get(stage, {}).values(), Cost())

    def per_thousand(self, cost: Cost) -> float | None:
        """Hours of `cost` per thousand images; None before the first image."""
        return cost.hours / self.images * 1000 if self.images else None

    def to_json(self) -> dict[str, Any]:
        """The report as `report --json` shows it."""
        stages = {
            stage: {outcome: vars(cost) for outcome, cost in rows.items()}
            for stage, rows in self.stages.items()
        }
        total = self.total
        return {
            "run": str(self.run.root),
            "source": self.source,
            "stages": stages,
            "total": {**vars(total), "lost": total.hours - total.useful},
            "unit": "gpu_h" if total.gpu_h else "cpu_h",
            "images": self.images,
            "per_thousand_images": {
                "generate": self.per_thousand(self.of("generate")),
                "whole_line": self.per_thousand(total),
            },
            "notes": list(self.notes),
        }


def cost_report(
    run: RunDir, stages: Sequence[Stage], scheduler: Scheduler | None = None
) -> CostReport:
    """The cost of `stages` so far; one question to accounting, if the run was on a cluster."""
    jobs = {
        job.job_id: job
        for record in read_submissions(run)
        if record.executor == "slurm"
        for job in record.jobs
    }
    notes: list[str] = []
    starts = _accounted(run, jobs, scheduler, notes) if jobs else []
    source = "accounting" if starts else "attempts"
    told = {start.job.split("_")[0] for start in starts}
    for stage in stages:
        starts += _attempted(run, stage, jobs, skip=told)
    if jobs and source == "attempts":
        notes.append("no accounting here: times are those of the attempts, GPUs as asked for")
    costs: dict[str, dict[str, Cost]] = {}
    for stage in stages:
        mine = [start for start in starts if start.stage == stage.name]
        for outcome, cost in _costs(run, stage, mine):
            rows = costs.setdefault(stage.name, {})
            rows[outcome] = rows.get(outcome, Cost()) + cost
    return CostReport(run, costs, _images(run), source, tuple(notes))


def _accounted(
    run: RunDir,
    jobs: Mapping[str, SubmittedJob],
    scheduler: Scheduler | None,
    notes: list[str],
) -> list[Start]:
    """Every start of every job as Slurm accounts for it."""
    created = str(run.info.get("created", "1970-01-01T00:00:00Z"))
    try:
        rows = (scheduler or cluster_scheduler()).accounting(list(jobs), created)
    except HpcError as error:
        notes.append(f"accounting gives no answer: {error}")
        return []
    starts = []
    for row in rows:
        if not row.started or row.elapsed_s == 0:
            continue
        job = jobs[row.job_id]
        began = datetime.datetime.fromisoformat(row.started).astimezone().timestamp()
        # Some sites do not account for GPUs; what was asked for was then given.
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


def _attempted(
    run: RunDir, stage: Stage, jobs: Mapping[str, SubmittedJob], skip: set[str]
) -> list[Start]:
    """Attempts of a stage by jobs that accounting did not tell of (`skip` are those it did)."""
    rows = read_attempts(run.stage(stage.name))
    if skip and any(job.stage == stage.name and job.job_id in skip for job in jobs.values()):
        # An array element's own job id differs from its array's: on a cluster all is accounted.
        return []
    ends = {(row["attempt"], row.get("element")): row for row in rows if "to" in row}
    asked = next((job for job in reversed(jobs.values()) if job.stage == stage.name), None)
    kept = _kept_times(run, stage)
    starts = []
    for row in rows:
        if "from" not in row:
            continue
        began = seconds_of(row["started"])
        end = ends.get((row["attempt"], row.get("element")))
        outcome, until = _ending(row, end, kept)
        gpus, cpus = (asked.gpus, max(asked.tasks, 1)) if asked else (0, 1)
        took = max(until - began, 0.0)
        starts.append(Start(stage.name, str(row["job"]), outcome, began, took, gpus, cpus))
    return starts


def _ending(
    row: Mapping[str, Any], end: Mapping[str, Any] | None, kept: Sequence[float]
) -> tuple[str, float]:
    """Outcome of an attempt and when it ended; a killed one is counted to its last progress."""
    began = seconds_of(row["started"])
    if end is None and row["host"] == socket.gethostname() and _lives(int(row["pid"])):
        return "running", time.time()
    if end is None or end["exit"] == KILLED:
        limit = seconds_of(end["ended"]) if end else time.time()
        return "killed", _last_between(kept, began, limit) or began
    code = int(end["exit"])
    outcome = "completed" if code == 0 else "cancelled" if code >= SIGNALLED else "failed"
    return outcome, seconds_of(end["ended"])


def _lives(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))


def _kept_times(run: RunDir, stage: Stage) -> list[float]:
    """When progress that stands on disk was made, ascending, s since the epoch."""
    if stage.reached is not None:
        return sorted(stage.reached(run))
    records = run.ledger(stage.name).records().values()
    return sorted(seconds_of(record.finished) for record in records)


def _last_between(times: Sequence[float], first: float, last: float) -> float | None:
    """The greatest of the ascending `times` from `first` to `last`; None without any."""
    at = bisect.bisect_right(times, last) - 1
    return times[at] if at >= 0 and times[at] >= first else None


def _costs(run: RunDir, stage: Stage, starts: Sequence[Start]) -> list[tuple[str, Cost]]:
    kept = _kept_times(run, stage) if any(s.outcome not in WELL for s in starts) else []
    return [(start.outcome, _cost(start, kept)) for start in starts]


def _cost(start: Start, kept: Sequence[float]) -> Cost:
    share = 1.0
    if start.outcome not in WELL:
        # Slurm tells whole seconds, so the last record may seem to come just after the end.
        last = _last_between(kept, start.began, start.began + start.seconds + 1.0)
        done = 0.0 if last is None else min(last - start.began, start.seconds)
        share = done / start.seconds if start.seconds else 0.0
    gpu_h, cpu_h = (start.seconds * width / 3600 for width in (start.gpus, start.cpus))
    return Cost(gpu_h, cpu_h, share * (gpu_h or cpu_h), 1)


def _images(run: RunDir) -> int:
    """Images made by `generate` so far."""
    records = run.ledger("generate").records().values()
    return sum(record.samples for record in records)


def report_lines(report: CostReport) -> list[str]:
    """The report as lines of at most 80 columns."""
    total = report.total
    unit = "GPU-h" if total.gpu_h else "CPU-h"
    lines = [
        f"{report.run.root}  from {report.source}",
        f"  {'stage':<14}{'outcome':<12}{'starts':>7}{'GPU-h':>11}{'CPU-h':>11}"
        f"{'useful':>11}{'lost':>11}",
    ]
    for stage, rows in report.stages.items():
        for outcome in sorted(rows, key=OUTCOMES.index):
            lines.append(_row(stage, outcome, rows[outcome]))
    lines.append(_row("total", "", total))
    lines.append(f"  useful and lost in {unit}; time in the queue is not counted")
    for what, cost in (("generation", report.of("generate")), ("the whole line", total)):
        per = report.per_thousand(cost)
        if per is not None:
            lines.append(f"  {per:.3g} {unit} per thousand images for {what}")
    return lines + [f"  {note}" for note in report.notes]


def _row(stage: str, outcome: str, cost: Cost) -> str:
    lost = cost.hours - cost.useful
    hours = "".join(f"{value:>11.3f}" for value in (cost.gpu_h, cost.cpu_h, cost.useful, lost))
    return f"  {stage:<14}{outcome:<12}{cost.starts:>7}{hours}"
