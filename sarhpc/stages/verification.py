"""Verification: what the records say against what lies on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.publish import digest_file
from hpc.run.ledger import Record
from hpc.run.pipeline import Stage
from hpc.run.rundir import RunDir


def verify_run(run: RunDir, stages: Sequence[Stage], deep: bool) -> tuple[int, list[str]]:
    """Number of artefacts checked, and one line for each that disagrees with its record."""
    records = [(s.name, r) for s in stages for r in run.ledger(s.name).records().values()]
    problems = [
        f"{stage} {record.shard}: {problem}"
        for stage, record in records
        if (problem := find_problem(record, deep)) is not None
    ]
    return len(records), problems


def find_problem(record: Record, deep: bool) -> str | None:
    """What is wrong with the artefact of `record`; sizes always, every byte if `deep`."""
    path = Path(record.path)
    if path.is_dir():
        from sarhpc.stages.tree import digest_tree

        digest = digest_tree(path)
        return None if digest.sha256 == record.sha256 else f"{path} changed since it was recorded"
    if not path.is_file():
        return f"{path} is gone; remove its record to make it again"
    size = path.stat().st_size
    if size != record.bytes:
        return f"{path} has {size} bytes, its record says {record.bytes}"
    if deep and digest_file(path).sha256 != record.sha256:
        return f"{path} has the right size and the wrong content (SHA-256 differs)"
    return None
