"""What a run has cost: GPU-hours by stage and outcome, useful and lost, per thousand images.

Slurm's accounting is the truth: GPUs allocated times seconds, over every start of every job, those
that were requeued too. Where there is none the attempts of the run stand in, with the GPUs that
were requested.

A start that ended well is useful as a whole. Of any other the time until the last progress that
was kept (a shard's record, a step that a checkpoint holds) is useful, and the rest is lost. Time in
the queue costs nothing and is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc.cluster.profile import Resources
from hpc.job.pipeline import Stage
from hpc.observe.starts import (
    OUTCOMES,
    WELL,
    Start,
    accounted_starts,
    attempted_starts,
    kept_times,
    last_between,
    times_on_nodes,
)
from hpc.observe.status import Scheduler, cluster_scheduler
from hpc.store.rundir import RunDir
from hpc.store.submissions import read_submissions


@dataclass(frozen=True)
class Cost:
    """Hours of machines; useful is what made something that stands on disk, the rest is lost."""

    starts: int = 0
    gpu_h: float = 0.0
    cpu_h: float = 0.0
    lost_gpu_h: float = 0.0
    """Part of `gpu_h`."""
    lost_cpu_h: float = 0.0
    """Part of `cpu_h`."""

    def __add__(self, other: Cost) -> Cost:
        """Both together."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Cost(*(a + b for a, b in pairs))


@dataclass(frozen=True)
class CostReport:
    """The cost of a run, stage by stage."""

    run: RunDir
    stages: Mapping[str, Mapping[str, Cost]]
    """Stage -> outcome -> cost; stages without any start are left out."""
    corpus: str
    """Stage that makes the images."""
    images: int
    """Images of its sealed or growing corpus."""
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

    @property
    def unit(self) -> str:
        """`GPU-h`, or `CPU-h` where no GPU was used."""
        return "GPU-h" if self.total.gpu_h else "CPU-h"

    def per_thousand(self, cost: Cost) -> float | None:
        """Hours of `cost`, in `unit`, per thousand images; None before the first image."""
        hours = cost.gpu_h if self.unit == "GPU-h" else cost.cpu_h
        return hours / self.images * 1000 if self.images else None

    def to_json(self) -> dict[str, Any]:
        """The report as `report --json` shows it."""
        stages = {
            stage: {outcome: vars(cost) for outcome, cost in rows.items()}
            for stage, rows in self.stages.items()
        }
        return {
            "run": str(self.run.root),
            "source": self.source,
            "stages": stages,
            "total": vars(self.total),
            "images": self.images,
            "unit": self.unit,
            "per_thousand_images": {
                self.corpus: self.per_thousand(self.of(self.corpus)),
                "whole_line": self.per_thousand(self.total),
            },
            "notes": list(self.notes),
        }


def cost_report(
    run: RunDir,
    stages: Sequence[Stage],
    requested: Mapping[str, Resources],
    corpus: str,
    scheduler: Scheduler | None = None,
) -> CostReport:
    """The cost of `stages` so far; one question to accounting, if the run was on a cluster.

    Args:
        run: the run.
        stages: of the run.
        requested: what each stage requests; counts where accounting has no record.
        corpus: stage whose samples are the images that costs are divided by.
        scheduler: the cluster; Slurm by default.
    """
    jobs = {
        job.job_id: job
        for record in read_submissions(run)
        if record.executor == "slurm"
        for job in record.jobs
    }
    notes: list[str] = []
    accounted = accounted_starts(run, jobs, scheduler or cluster_scheduler()) if jobs else []
    if jobs and not accounted:
        notes.append("no accounting here: times are those of the attempts, resources as requested")
    costs: dict[str, dict[str, Cost]] = {}
    for stage in stages:
        starts = [start for start in accounted if start.stage == stage.name]
        starts = starts or attempted_starts(run, stage, requested.get(stage.name, Resources()))
        rows: dict[str, Cost] = {}
        for outcome, cost in _costs(run, stage, starts):
            rows[outcome] = rows.get(outcome, Cost()) + cost
        if rows:
            costs[stage.name] = rows
    source = "accounting" if accounted else "attempts"
    return CostReport(run, costs, corpus, _images(run, corpus), source, tuple(notes))


def _costs(run: RunDir, stage: Stage, starts: Sequence[Start]) -> list[tuple[str, Cost]]:
    cut_short = {start.nodes for start in starts if start.outcome not in WELL}
    kept = kept_times(run, stage) if cut_short else {}
    times = {nodes: times_on_nodes(kept, nodes) for nodes in cut_short}
    return [(start.outcome, _cost(start, times.get(start.nodes, []))) for start in starts]


def _cost(start: Start, kept: Sequence[float]) -> Cost:
    lost = 0.0
    if start.outcome not in WELL and start.seconds:
        # Slurm tells whole seconds, so the last record may seem to come just after the end.
        until = start.began + start.seconds + 1.0
        last = last_between(kept, start.began, until)
        done = 0.0 if last is None else min(last - start.began, start.seconds)
        lost = 1.0 - done / start.seconds
    gpu_h, cpu_h = (start.seconds * width / 3600 for width in (start.gpus, start.cpus))
    return Cost(1, gpu_h, cpu_h, lost * gpu_h, lost * cpu_h)


def _images(run: RunDir, corpus: str) -> int:
    """Images made so far."""
    records = run.ledger(corpus).records().values()
    return sum(record.samples for record in records)


def report_lines(report: CostReport) -> list[str]:
    """The report as lines of at most 80 columns."""
    total = report.total
    heads = "".join(f"{head:>11}" for head in ("GPU-h", "lost", "CPU-h", "lost"))
    lines = [
        f"{report.run.root}  from {report.source}",
        f"  {'stage':<14}{'outcome':<12}{'starts':>7}{heads}",
    ]
    for stage, rows in report.stages.items():
        lines += [_row(stage, name, rows[name]) for name in sorted(rows, key=OUTCOMES.index)]
    lines.append(_row("total", "", total))
    lines.append("  lost: after the last progress that was kept; time in the queue is not counted")
    for what, cost in (("generation", report.of(report.corpus)), ("the whole pipeline", total)):
        per = report.per_thousand(cost)
        if per is not None:
            lines.append(f"  {per:.3g} {report.unit} per thousand images for {what}")
    return lines + [f"  {note}" for note in report.notes]


def _row(stage: str, outcome: str, cost: Cost) -> str:
    numbers = (cost.gpu_h, cost.lost_gpu_h, cost.cpu_h, cost.lost_cpu_h)
    hours = "".join(f"{hours:>11.3f}" for hours in numbers)
    return f"  {stage:<14}{outcome:<12}{cost.starts:>7}{hours}"
