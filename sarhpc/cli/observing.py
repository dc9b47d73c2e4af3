"""The verbs that look and tidy up: status, logs, report, clean, fetch."""

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
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from hpc.cluster.profile import Resources


def status_verb(arguments: argparse.Namespace) -> int:
    """Show where the run stands, once or until it is complete."""
    from hpc.observe.status import run_status
    from hpc.observe.view import show, watch
    from hpc.store.submissions import submissions_directory

    run = open_run(Path(arguments.run))
    stages = line_of_stages(load_run_config(run))
    if arguments.watch:
        try:
            every = arguments.every or (30 if submissions_directory(run).exists() else 5)
            watch(lambda: run_status(run, stages), every)
        except KeyboardInterrupt:
            return 0
        return 0
    status = run_status(run, stages)
    if arguments.json:
        print(json.dumps(status.to_json(), indent=1))
    else:
        show(status)
    return 0


def logs_verb(arguments: argparse.Namespace) -> int:
    """Show the end of the newest log of each stage, or what failed."""
    run = open_run(Path(arguments.run))
    config = load_run_config(run)
    one = arguments.stage
    stages = [stage_named(config, one)] if one else line_of_stages(config)
    if arguments.failed:
        return _show_failed(run, stages, arguments.tail)
    return _show_logs(run, [*([] if one else [""]), *(s.name for s in stages)], arguments)


def _show_failed(run: RunDir, stages: Sequence[Stage], lines: int) -> int:
    from hpc.observe.logs import failure_lines, log_tails

    any_failed = False
    for stage in stages:
        found = failure_lines(run, stage)
        if found:
            any_failed = True
            print("\n".join([*found, *log_tails(run, stage.name, lines)]))
    if not any_failed:
        print("no shard failed")
    return 0


def _show_logs(run: RunDir, names: Sequence[str], arguments: argparse.Namespace) -> int:
    from hpc.observe.logs import follow, log_files, log_tails

    lines = [line for name in names for line in log_tails(run, name, arguments.tail)]
    if lines or not arguments.follow:
        print("\n".join(lines) or "no logs yet", flush=True)
    if arguments.follow:
        stages = [name for name in names if name]
        try:
            follow(
                lambda: [file.path for name in names for file in log_files(run, name)],
                ended=lambda: all(run.ledger(name).sealed for name in stages),
            )
        except KeyboardInterrupt:
            return 0
    return 0


def _asked(run: RunDir, stages: Sequence[Stage]) -> dict[str, Resources]:
    """What each stage asks for: by the profile last submitted to, else on this machine."""
    from hpc.cluster.profile import load_profile
    from hpc.store.submissions import read_submissions
    from sarhpc.launch.profile import resources

    config = load_run_config(run)
    asked = {stage.name: resources(config, stage) for stage in stages}
    submissions = read_submissions(run)
    if submissions:
        newest = submissions[-1]
        file = Path(newest.profile_file)
        try:
            profile = load_profile(str(file) if file.is_file() else newest.profile)
        except ConfigError as error:
            print(f"widths of stages are not known: {error}", file=sys.stderr)
        else:
            asked = {stage.name: profile.resources_of(stage.name) for stage in stages}
    return asked


def report_verb(arguments: argparse.Namespace) -> int:
    """Show what the run has cost, and where its reports are."""
    from hpc.observe.report import cost_report, report_lines
    from sarhpc.stages.generate import GENERATE

    run = open_run(Path(arguments.run))
    stages = line_of_stages(load_run_config(run))
    report = cost_report(run, stages, _asked(run, stages), GENERATE.name)
    if arguments.json:
        print(json.dumps(report.to_json(), indent=1))
        return 0
    print("\n".join(report_lines(report)))
    html = run.root / "report.html"
    if html.exists():
        print(f"  the images are judged in {html}")
    return 0


def clean_verb(arguments: argparse.Namespace) -> int:
    """List what nothing needs any more; with `--yes` remove it."""
    from hpc.observe.clean import find_removable, removable_lines, remove_files, size_text
    from hpc.observe.status import run_status
    from sarhpc.stages.paths import data_root

    run = open_run(Path(arguments.run))
    config = load_run_config(run)
    stages = line_of_stages(config)
    status = run_status(run, stages)
    removable = find_removable(status, stages, data_root(run, config))
    for line in removable_lines(removable):
        print(line)
    total = size_text(sum(piece.bytes for piece in removable))
    what = f"{total} in {sum(piece.files for piece in removable)} files"
    for note in status.notes:
        print(note)
    if not removable:
        print("nothing to clean")
    elif arguments.yes:
        remove_files(run, removable)
        print(f"removed {what}; noted in {run.root / 'cleaned.jsonl'}")
    else:
        print(f"{what}; nothing was removed. To remove it: sarhpc clean {arguments.run} --yes")
    return 0


def fetch_verb(arguments: argparse.Namespace) -> int:
    """Bring models to the shared cache; without a name list them."""
    from sarhpc.stages.models import MODELS, cache_root, fetch, model_named, require_whole

    root = Path(arguments.to) if arguments.to else cache_root()
    source = Path(arguments.source) if arguments.source else None
    for model in map(model_named, arguments.models):
        print(f"{model.name}: {model.repository} at {model.revision[:12]}, licence {model.licence}")
        print(f"  {model.licence_url}", flush=True)
        folder = fetch(model, root, source)
        if arguments.deep:
            require_whole(model, folder, deep=True)
        name = str(folder) if arguments.to else f"fetched:{model.name}"
        print(f"  {folder}; use it with {model.use}={name}")
    if not arguments.models:
        for model in MODELS:
            there = (root / model.name).is_dir()
            print(f"{model.name:<6} {model.repository}  {model.licence}"
                  f"{f'  in {root}' if there else ''}")  # fmt: skip
        print("bring one with: sarhpc fetch NAME [--to FOLDER] [--from FOLDER]")
    return 0
