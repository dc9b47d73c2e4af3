"""The verb `logs`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli.verbs import Verbs, add_json, add_verb, print_json
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
    add_json(logs, "machine-readable; not with --follow")
    logs.set_defaults(handler=logs_verb)


def logs_verb(arguments: argparse.Namespace) -> int:
    """Show the end of the newest log of each stage, or what failed."""
    run = open_run(Path(arguments.run))
    config = load_run_config(run)
    one = arguments.stage
    stages = [stage_named(config, one)] if one else line_of_stages(config)
    if arguments.json:
        if arguments.follow:
            raise ConfigError("--json prints one document: leave --follow out")
        print_json(_document(run, stages, arguments.tail, only_failed=arguments.failed))
        return 0
    if arguments.failed:
        return _show_failed(run, stages, arguments.tail)
    return _show_logs(run, [*([] if one else [""]), *(s.name for s in stages)], arguments)


def _document(
    run: RunDir, stages: Sequence[Stage], lines: int, *, only_failed: bool
) -> dict[str, Any]:
    """Failures and the ends of the newest logs by stage; of the driver's under `line`."""
    from hpc.observe.logs import failure_lines, newest_logs, tail

    failures = {stage.name: failure_lines(run, stage) for stage in stages}
    names = [stage.name for stage in stages if failures[stage.name] or not only_failed]
    names = names if only_failed else ["", *names]
    logs = {
        name or "line": [
            {"path": file.path, "tail": list(tail(file.path, lines))}
            for file in newest_logs(run, name)
        ]
        for name in names
    }
    return {"failures": {name: found for name, found in failures.items() if found}, "logs": logs}


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
