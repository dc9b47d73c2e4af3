"""The verb `clean`."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpc.shell import quoted
from hpc.store.rundir import open_run
from sarhpc.cli.own_run import own_run
from sarhpc.cli.verbs import Verbs, add_json, add_verb, print_json
from sarhpc.stages.inputs.paths import data_root
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config


def add_clean(verbs: Verbs) -> None:
    """Add `clean`."""
    clean = add_verb(verbs, "clean", "list files that are no longer needed; --yes removes them")
    clean.add_argument("run", help="run directory")
    clean.add_argument("--yes", action="store_true", help="remove them")
    add_json(clean)
    clean.set_defaults(handler=clean_verb)


def clean_verb(arguments: argparse.Namespace) -> int:
    """List what nothing needs any more; with `--yes` remove it."""
    from hpc.observe.clean import find_removable, removable_lines, remove_files, size_text
    from hpc.observe.status import run_status

    run = own_run(arguments.run) if arguments.yes else open_run(Path(arguments.run))
    config = load_run_config(run)
    stages = line_of_stages(config)
    status = run_status(run, stages)
    removable = find_removable(status, stages, data_root(run, config))
    if arguments.json:
        if arguments.yes:
            remove_files(run, removable)
        pieces = [vars(piece) for piece in removable]
        print_json({"removed": arguments.yes, "notes": status.notes, "files": pieces})
        return 0
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
        print(
            f"{what}; nothing was removed. To remove it: sarhpc clean {quoted(arguments.run)} --yes"
        )
    return 0
