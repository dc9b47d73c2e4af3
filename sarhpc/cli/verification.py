"""The verb `verify`: artefacts on disk against their records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc.job.pipeline import Stage
from hpc.publish import digest_file
from hpc.store.ledger import Record
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli.verbs import Verbs, add_verb
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.tree import digest_tree, tree_bytes


def add_verify(verbs: Verbs) -> None:
    """Add `verify`."""
    verify = add_verb(verbs, "verify", "check every published artefact against its record")
    verify.add_argument("run", help="run directory")
    verify.add_argument("--deep", action="store_true", help="read every byte, not only sizes")
    verify.set_defaults(handler=verify_verb)


def verify_verb(arguments: argparse.Namespace) -> int:
    """Check every published artefact against its record; exit 4 if any disagrees."""
    run = open_run(Path(arguments.run))
    checked, problems = verify_run(run, line_of_stages(load_run_config(run)), arguments.deep)
    for problem in problems:
        print(problem)
    print(f"{checked} artefacts checked, {len(problems)} wrong")
    if problems:
        print(
            "to make them again move their records away, in a sealed stage its manifest.jsonl, "
            f"then: sarhpc resume {arguments.run}",
            file=sys.stderr,
        )
    return 4 if problems else 0


def verify_run(run: RunDir, stages: Sequence[Stage], deep: bool) -> tuple[int, list[str]]:
    """Number of artefacts checked, and one line for each that disagrees with its record."""
    checked, problems = 0, []
    for stage in stages:
        records = run.ledger(stage.name).records()
        checked += len(records)
        plan = read_plan(run.plan_file(stage.name)).id if records else ""
        for record in records.values():
            problem = find_problem(record, deep)
            if record.plan != plan:
                problem = f"its record belongs to plan {record.plan}, the plan here is {plan}"
            if problem is not None:
                problems.append(f"{stage.name} {record.shard}: {problem}")
    return checked, problems


def find_problem(record: Record, deep: bool) -> str | None:
    """What is wrong with the artefact of `record`; sizes always, every byte if `deep`."""
    path = Path(record.path)
    if path.is_dir():
        if (held := tree_bytes(path)) != record.bytes:
            return f"{path} holds {held} bytes, its record says {record.bytes}"
        if deep and digest_tree(path).sha256 != record.sha256:
            return f"{path} has the right size and the wrong content (SHA-256 differs)"
        return None
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != record.bytes:
        return f"{path} has {size} bytes, its record says {record.bytes}"
    if deep and digest_file(path).sha256 != record.sha256:
        return f"{path} has the right size and the wrong content (SHA-256 differs)"
    return None
