"""What a command that waited ends with: report, model, corpus, hours, the next command."""

from __future__ import annotations

from collections.abc import Iterator

from hpc.errors import HpcError
from hpc.job.pipeline import Stage, unsealed_stages
from hpc.observe.report import cost_report
from hpc.observe.state import stage_state
from hpc.store.rundir import RunDir
from sarhpc.launch.profile import requested_resources
from sarhpc.stages.export import EXPORT
from sarhpc.stages.generate import GENERATE
from sarhpc.stages.inputs.paths import data_root
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config


def outcome_lines(run: RunDir, *, failed: bool) -> list[str]:
    """What the run has made so far and cost, and the command that comes next, one a line.

    Args:
        run: the run.
        failed: whether its work ended with an error.
    """
    return [f"  {name:<7} {text}" for name, text in outcome(run, failed=failed).items()]


def outcome(run: RunDir, *, failed: bool) -> dict[str, str]:
    """The same by name."""
    return dict(_facts(run, failed))


def _facts(run: RunDir, failed: bool) -> Iterator[tuple[str, str]]:
    report = run.root / "report.html"
    if report.is_file():
        yield "report", str(report)
    for record in run.ledger(EXPORT.name).records().values():
        yield "model", record.path
    corpus = list(run.ledger(GENERATE.name).records().values())
    if corpus:
        folder = data_root(run, load_run_config(run)) / "synthetic"
        images = sum(record.samples for record in corpus)
        yield "corpus", f"{folder}  ({images:,} images)"
    hours = _hours(run)
    if hours:
        yield "hours", hours
    yield "next", _next_command(run, failed)


def _hours(run: RunDir) -> str | None:
    """Hours of all starts of the run so far; None where they are not to be had."""
    stages = line_of_stages(load_run_config(run))
    try:
        report = cost_report(run, stages, requested_resources(run, stages), GENERATE.name)
    except HpcError:
        return None
    total = report.total
    if not total.starts:
        return None
    used, lost = (
        (total.gpu_h, total.lost_gpu_h)
        if report.unit == "GPU-h"
        else (total.cpu_h, total.lost_cpu_h)
    )
    starts = "1 start" if total.starts == 1 else f"{total.starts} starts"
    return f"{used:.2f} {report.unit} in {starts}, {lost:.2f} of them lost"


def _next_command(run: RunDir, failed: bool) -> str:
    if run.stop_file.exists():
        return f"sarhpc resume {run.quoted}"
    if failed and any(stage_state(run, stage).permanent for stage in _open_stages(run)):
        return f"sarhpc logs {run.quoted} --failed  # the same start would fail again"
    if failed:
        return f"sarhpc logs {run.quoted} --failed, then sarhpc resume {run.quoted}"
    left = [stage.name for stage in _open_stages(run)]
    return f"sarhpc run {run.quoted}  # {', '.join(left)}" if left else f"sarhpc view {run.quoted}"


def _open_stages(run: RunDir) -> list[Stage]:
    return list(unsealed_stages(run, line_of_stages(load_run_config(run))))
