"""A split that was asked for and came out empty is reported by `status`, and stops who needs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.errors import DataError
from hpc.job.pipeline import Work
from hpc.observe.status import run_status
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.stages.evaluate import plan_evaluation
from sarhpc.stages.generate import prompts_of
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config


def sealed(run: RunDir, stage: str, splits: dict[str, int]) -> None:
    """Stand a sealed stage in the run, a shard for each split with so many samples."""
    plan = make_plan(stage, [{"split": split} for split in splits])
    publish_plan(plan, run.plan_file(stage))
    ledger = run.ledger(stage)
    for task, (split, samples) in zip(plan.shards, splits.items(), strict=True):
        record = Record(task.id, plan.id, "x.tar", samples, 1, "0", 0, "h", now(), now(), 1.0, {},
                        {"split": split})  # fmt: skip
        ledger.publish(record)
    finish = stage_named(load_run_config(run), stage).finish
    assert finish is not None
    finish(Work(run, plan, ledger, attempt=-1))
    ledger.seal(plan)


def said(run: RunDir) -> tuple[str, ...]:
    return run_status(run, line_of_stages(load_run_config(run))).notes


def test_an_empty_split_is_a_warning_of_status_and_stops_what_needs_it(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tmp_path)
    assert said(run) == ()
    sealed(run, "tile", {"train": 8, "val": 2})
    assert said(run) == ()
    sealed(run, "caption", {"train": 8, "val": 0})
    [line] = said(run)
    assert line.startswith("split val came out empty: no sample of caption is in it; start a new")
    assert "tile.split.fractions" in line
    for needs in (plan_evaluation, lambda run: prompts_of(run, load_run_config(run))):
        with pytest.raises(DataError, match="split val came out empty"):
            needs(run)


def test_a_split_that_nobody_asked_for_may_be_empty(tmp_path: Path) -> None:
    words = ["tile.split.fractions=[1.0, 0.0, 0.0]"]
    run = tiny_run(tmp_path / "run", tmp_path, words)
    sealed(run, "tile", {"train": 8})
    sealed(run, "caption", {"train": 0})
    assert said(run)[0].startswith("split train came out empty")
