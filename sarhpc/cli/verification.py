"""The verb `verify`: artefacts on disk against their records."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpc.observe.verify import verify_run
from hpc.shell import quoted
from hpc.store.rundir import open_run
from sarhpc.cli.verbs import Verbs, add_json, add_verb, print_json
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config


def add_verify(verbs: Verbs) -> None:
    """Add `verify`."""
    verify = add_verb(verbs, "verify", "check every published artefact against its record")
    verify.add_argument("run", help="run directory")
    verify.add_argument("--deep", action="store_true", help="read every byte, not only sizes")
    add_json(verify)
    verify.set_defaults(handler=verify_verb)


def verify_verb(arguments: argparse.Namespace) -> int:
    """Check every published artefact against its record; exit 4 if any disagrees."""
    run = open_run(Path(arguments.run))
    checked, problems = verify_run(run, line_of_stages(load_run_config(run)), arguments.deep)
    if arguments.json:
        print_json({"checked": checked, "problems": problems})
        return 4 if problems else 0
    for problem in problems:
        print(problem)
    print(f"{checked} artefacts checked, {len(problems)} wrong")
    if problems:
        print(
            "to make them again move their records away, in a sealed stage its manifest.jsonl, "
            f"then: sarhpc resume {quoted(arguments.run)}",
            file=sys.stderr,
        )
    return 4 if problems else 0
