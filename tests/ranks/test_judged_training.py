"""Grids judged against real tiles: a checkpoint with each, and the best one stays."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest
from training_ranks import Job, contents, differences, step_folder, tiny_config, train_ranks

from sarhpc.training.judged import best_first, read_judged

pytestmark = pytest.mark.slow

SCORES = {0: 9.0, 2: 1.0, 4: 5.0, 6: 3.0, 8: 4.0}


def judged_job(base: Path, root: Path) -> Job:
    cfg = tiny_config(
        max_steps=8,
        validation_every_steps=2,
        validation_seeds=[3, 4],
        checkpoint_every_s=1e9,
        zero_stage=2,
    )
    return Job(base, root, cfg, scores=SCORES)


def saved(job: Job) -> set[str]:
    return {path.name for path in (job.root / "checkpoints").glob("step_*")}


def test_a_checkpoint_comes_with_each_grid_and_the_best_stays_over_a_kill(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    whole = judged_job(tiny_bundle, tmp_path / "whole")
    assert train_ranks(whole) == [0, 0]
    rows = read_judged(whole.root / "validation")
    assert {row["step"]: row["score"] for row in rows} == SCORES
    # The base that training starts from is judged too, and never chosen.
    assert best_first(whole.root / "validation") == [2, 6, 8, 4]
    assert saved(whole) == {"step_00000002", "step_00000006", "step_00000008"}

    # Judged, and killed before its checkpoint stood: the next start makes up for it.
    killed = judged_job(tiny_bundle, tmp_path / "killed")
    faults = {0: "checkpoint.before_rename:1:kill"}
    codes = train_ranks(dataclasses.replace(killed, faults=faults))
    assert codes[0] == -signal.SIGKILL
    assert best_first(killed.root / "validation") == [2]
    assert saved(killed) == set()
    assert train_ranks(dataclasses.replace(killed, attempt=2)) == [0, 0]
    assert saved(killed) == saved(whole)
    for step in (2, 8):
        pair = contents(step_folder(killed, step)), contents(step_folder(whole, step))
        assert differences(*pair) == []
