"""The verb `costs`, before `report`: the report is the page on the images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hpc.store.rundir import open_run
from sarhpc.cli.verbs import Verbs, add_verb
from sarhpc.stages.generate import GENERATE
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config


def add_report(verbs: Verbs) -> None:
    """Add `costs`."""
    report = add_verb(verbs, "costs", "GPU-hours by stage and outcome, useful and lost")
    report.add_argument("run", help="run directory")
    report.add_argument("--json", action="store_true", help="machine-readable")
    report.set_defaults(handler=report_verb)


def report_verb(arguments: argparse.Namespace) -> int:
    """Show what the run has cost, and where its reports are."""
    from hpc.observe.report import cost_report, report_lines
    from sarhpc.launch.profile import requested_resources
    from sarhpc.stages.planned_corpus import coverage_lines, coverage_so_far

    run = open_run(Path(arguments.run))
    stages = line_of_stages(load_run_config(run))
    report = cost_report(run, stages, requested_resources(run, stages), GENERATE.name)
    coverage = coverage_so_far(run, load_run_config(run))
    if arguments.json:
        planned = {} if coverage is None else {"coverage": coverage.to_json()}
        print(json.dumps(report.to_json() | planned, indent=1))
        return 0
    print("\n".join(report_lines(report)))
    if coverage is not None:
        print("\n".join(f"  {line}" for line in coverage_lines(coverage)))
    html = run.root / "report.html"
    if html.exists():
        print(f"  the images are judged in {html}")
    return 0
