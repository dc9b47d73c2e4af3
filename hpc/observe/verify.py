"""Verification of the artefacts on disk against their records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.job.pipeline import Stage
from hpc.publish import digest_file
from hpc.store.ledger import Record
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from hpc.store.tree import digest_tree, tree_bytes


def verify_run(run: RunDir, stages: Sequence[Stage], deep: bool) -> tuple[int, list[str]]:
    """Number of artefacts checked, and one line for each that disagrees with its record.

    Sizes are always compared, SHA-256 only if `deep`.
    """
    checked, problems = 0, []
    for stage in stages:
        records = run.ledger(stage.name).records()
        checked += len(records)
        plan = read_plan(run.plan_file(stage.name)).id if records else ""
        for record in records.values():
            problem = _find_mismatch(record, deep)
            if record.plan != plan:
                problem = f"its record belongs to plan {record.plan}, the plan here is {plan}"
            if problem is not None:
                problems.append(f"{stage.name} {record.shard}: {problem}")
            for path, sha256 in ({} if stage.beside is None else stage.beside(record)).items():
                checked += 1
                if not path.is_file():
                    problems.append(f"{stage.name} {record.shard}: {path} is missing")
                elif deep and digest_file(path).sha256 != sha256:
                    problems.append(f"{stage.name} {record.shard}: {path} has the wrong content")
    return checked, problems


def _find_mismatch(record: Record, deep: bool) -> str | None:
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
