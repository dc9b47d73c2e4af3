"""The verb `report`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli.verbs import Verbs, add_verb
from sarhpc.stages.generate import GENERATE
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from hpc.cluster.profile import Resources


def add_report(verbs: Verbs) -> None:
    """Add `report`."""
    report = add_verb(verbs, "report", "GPU-hours by stage and outcome, useful and lost")
    report.add_argument("run", help="run directory")
    report.add_argument("--json", action="store_true", help="machine-readable")
    report.set_defaults(handler=report_verb)


def report_verb(arguments: argparse.Namespace) -> int:
    """Show what the run has cost, and where its reports are."""
    from hpc.observe.report import cost_report, report_lines
    from sarhpc.stages.planned_corpus import coverage_lines, coverage_so_far
    from sarhpc.stages.work.packaging import gate_notes, gate_so_far

    run = open_run(Path(arguments.run))
    stages = line_of_stages(load_run_config(run))
    report = cost_report(run, stages, _requested(run, stages), GENERATE.name)
    coverage = coverage_so_far(run, load_run_config(run))
    if arguments.json:
        planned = {} if coverage is None else {"coverage": coverage.to_json()}
        gate = gate_so_far(run)
        gated = {} if gate is None else {"gate": gate.to_json()}
        print(json.dumps(report.to_json() | planned | gated, indent=1))
        return 0
    print("\n".join(report_lines(report)))
    if coverage is not None:
        print("\n".join(f"  {line}" for line in coverage_lines(coverage)))
    print("".join(f"  {line}\n" for line in gate_notes(run)), end="")
    html = run.root / "report.html"
    if html.exists():
        print(f"  the images are judged in {html}")
    return 0


def _requested(run: RunDir, stages: Sequence[Stage]) -> dict[str, Resources]:
    """What each stage asks for: by the profile last submitted to, else on this machine."""
    from hpc.cluster.profile import load_profile
    from hpc.store.submissions import read_submissions
    from sarhpc.launch.profile import resources

    config = load_run_config(run)
    requested = {stage.name: resources(config, stage) for stage in stages}
    submissions = read_submissions(run)
    if submissions:
        newest = submissions[-1]
        file = Path(newest.profile_file)
        try:
            profile = load_profile(str(file) if file.is_file() else newest.profile)
        except ConfigError as error:
            print(f"widths of stages are not known: {error}", file=sys.stderr)
        else:
            requested = {stage.name: profile.resources_of(stage.name) for stage in stages}
    return requested
