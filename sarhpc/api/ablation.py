"""Runs compared by what differs in their configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.documents import read_json
from hpc.errors import ConfigError
from hpc.shell import quoted
from hpc.store.rundir import RunDir, open_run

if TYPE_CHECKING:
    from sarhpc.evaluation.ablation import Ablation, EvaluatedRun


def ablation(runs: Sequence[str | Path]) -> Ablation:
    """Settings that differ, distances with nulls, and hours of runs; they are only read.

    A run without an evaluation is in the table with what it cost, and is named in the notes. Runs
    whose evaluations do not compare are not ranked against one another, and the notes say why.

    Args:
        runs: two or more run directories.

    Raises:
        ConfigError: fewer than two runs, one that is named twice, or no run directory.
    """
    from sarhpc.evaluation.ablation import tabulate

    opened = [open_run(Path(run)) for run in runs]
    roots = [run.root for run in opened]
    twice = sorted({str(root) for root in roots if roots.count(root) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)} is named twice: name each run once")
    if len(opened) < 2:
        raise ConfigError(f"{len(opened)} run: an ablation compares at least two")
    names = [run.name for run in opened]
    return tabulate(
        [_read(run, run.name if names.count(run.name) == 1 else str(run.root)) for run in opened]
    )


def _read(run: RunDir, name: str) -> EvaluatedRun:
    from hpc.config import to_dict
    from sarhpc.evaluation.ablation import EvaluatedRun
    from sarhpc.stages.run_config import load_run_config

    config = load_run_config(run)
    evaluation, missing = _evaluation(run)
    return EvaluatedRun(
        name, str(run.root), to_dict(config, transient=False), evaluation, missing, _cost(run),
        _captions(run),
    )  # fmt: skip


def _evaluation(run: RunDir) -> tuple[dict[str, Any] | None, str]:
    from sarhpc.evaluation.ablation_measures import JUDGED
    from sarhpc.stages.evaluate import EVALUATE
    from sarhpc.stages.run_config import load_run_config

    if not EVALUATE.enabled(load_run_config(run)):
        return None, "it makes no corpus (generate=null), so that there is nothing to evaluate"
    path = run.stage(EVALUATE.name) / "evaluation.json"
    if not run.ledger(EVALUATE.name).sealed or not path.is_file():
        return None, f"not evaluated yet: sarhpc evaluate {quoted(run.root)}"
    document = read_json(path)
    if "real" not in document.get("sets", {}) or JUDGED not in document["sets"]:
        return None, f"{path} is of another version, and is left out"
    return document, ""


def _cost(run: RunDir) -> Mapping[str, Any]:
    from hpc.observe.report import cost_report
    from sarhpc.launch.profile import requested_resources
    from sarhpc.stages.generate import GENERATE
    from sarhpc.stages.registry import line_of_stages
    from sarhpc.stages.run_config import load_run_config

    stages = line_of_stages(load_run_config(run))
    report = cost_report(run, stages, requested_resources(run, stages), GENERATE.name)
    gpu = report.unit == "GPU-h"
    hours = {name: report.of(name) for name in report.stages}
    return {
        "unit": report.unit,
        "source": report.source,
        "total": report.total.gpu_h if gpu else report.total.cpu_h,
        "lost": report.total.lost_gpu_h if gpu else report.total.lost_cpu_h,
        "stages": {n: cost.gpu_h if gpu else cost.cpu_h for n, cost in hours.items()},
        "images": report.images,
    }


def _captions(run: RunDir) -> dict[str, dict[str, float]]:
    from sarhpc.training.metrics.log import read_rows

    path = run.stage("caption-train") / "metrics.jsonl"
    rows = read_rows(path) if path.is_file() else []
    found = {}
    for event in ("before", "after"):
        of = [row for row in rows if row.get("event") == event]
        scores = {
            name: float(value)
            for name, value in (of[-1] if of else {}).items()
            if isinstance(value, int | float) and name not in ("step", "time")
        }
        if scores:
            found[event] = scores
    return found
