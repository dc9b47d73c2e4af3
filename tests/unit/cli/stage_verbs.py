"""Verbs in this process, and stages that look finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.publish import publish_bytes
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.cli import main


def say(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a verb in this process."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def seal(run: RunDir, stage: str, shards: int = 2) -> list[Path]:
    """Stand a finished stage of small files in the run."""
    plan = make_plan(stage, [{"n": n} for n in range(shards)])
    publish_plan(plan, run.plan_file(stage))
    paths = []
    for task in plan.shards:
        path = run.root / "data" / stage / f"{task.id}.tar"
        digest = publish_bytes(path, task.id.encode() * 10)
        run.ledger(stage).publish(
            Record(task.id, plan.id, str(path), 3, digest.bytes, digest.sha256, 0, "h", now(),
                   now(), 1.0, {"nodata": 1}, {"split": "train"})
        )  # fmt: skip
        paths.append(path)
    run.ledger(stage).seal(plan)
    return paths
