"""The verb `status`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hpc.store.rundir import open_run
from sarhpc.cli.verbs import Verbs, add_verb
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config


def add_status(verbs: Verbs) -> None:
    """Add `status`."""
    status = add_verb(verbs, "status", "state of a run, from disk, queue and accounting")
    status.add_argument("run", help="run directory")
    status.add_argument("--json", action="store_true", help="machine-readable")
    status.add_argument(
        "--watch", action="store_true", help="repeat until all that was started is done"
    )
    status.add_argument("--every", type=float, metavar="S", help="seconds between updates (default "
                        "5, with jobs on a cluster 30)")  # fmt: skip
    status.set_defaults(handler=status_verb)


def status_verb(arguments: argparse.Namespace) -> int:
    """Show the state of the run, once or until it is complete."""
    from hpc.observe.status import run_status
    from hpc.observe.view import show
    from hpc.observe.watch import Watching, watch
    from hpc.store.submissions import read_submissions

    run = open_run(Path(arguments.run))
    stages = line_of_stages(load_run_config(run))
    if arguments.watch:
        try:
            every = arguments.every or (30 if read_submissions(run) else 5)
            watch(Watching(lambda: run_status(run, stages), every, lambda status: status.over))
        except KeyboardInterrupt:
            return 0
        return 0
    status = run_status(run, stages)
    if arguments.json:
        print(json.dumps(status.to_json(), indent=1))
    else:
        show(status)
    return 0
