"""The micro-batch of a training: chosen at its first start, and kept by every other one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.errors import ConfigError
from hpc.job.agreement import SingleProcess
from hpc.job.pipeline import Work
from hpc.store.plan import Plan
from hpc.store.rundir import RunDir
from sarhpc.stages.work.ranks import MICRO_BATCH, frozen_micro_batch


def chosen(root: Path, world: int, most: int = 8) -> int:
    """The micro-batch of a start on `world` ranks, of which this is the first."""
    run = RunDir(root)
    work = Work(run, Plan("train", ()), run.ledger("train"), attempt=1)
    return frozen_micro_batch(work, SingleProcess(0, world), most, 16, "train.global_batch")


def test_the_first_start_chooses_and_the_next_ones_keep_it(tmp_path: Path) -> None:
    assert chosen(tmp_path, 4) == 4
    assert json.loads((tmp_path / "train" / MICRO_BATCH).read_text())["micro_batch"] == 4
    assert [chosen(tmp_path, world) for world in (4, 1, 2)] == [4, 4, 4]
    assert chosen(tmp_path, 8) == 2, "a share of two samples has no four"
    assert chosen(tmp_path, 4) == 4


def test_ranks_that_do_not_divide_the_batch_choose_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.global_batch=16 does not divide among 3 ranks"):
        chosen(tmp_path, 3)
    assert not (tmp_path / "train").exists()
