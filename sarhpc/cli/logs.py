"""The verb `logs`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hpc.job.pipeline import Stage
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli.verbs import Verbs, add_verb
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config


def add_logs(verbs: Verbs) -> None:
    """Add `logs`."""
    logs = add_verb(verbs, "logs", "show the newest logs of a run")
    logs.add_argument("run", help="run directory")
    logs.add_argument("--stage", help="only this stage")
    logs.add_argument("--tail", type=int, default=40, help="lines of each log (default 40)")
    logs.add_argument(
        "--failed", action="store_true", help="what failed, why, and the end of its log"
    )
    logs.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="print new lines as they are written, until Ctrl-C",
    )
    logs.set_defaults(handler=logs_verb)


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
