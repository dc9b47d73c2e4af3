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
from sarhpc.stages.work.ranks import MICRO_BATCH, frozen_layout, frozen_micro_batch
from sarhpc.training.config import TrainConfig
from sarhpc.training.estimate.fit import Fit


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


def fitted(root: Path, world: int, fit: Fit | Exception) -> TrainConfig:
    """The training of a start on `world` ranks, where the memory now allows `fit`."""

    def layout() -> Fit:
        if isinstance(fit, Exception):
            raise fit
        return fit

    run = RunDir(root)
    work = Work(run, Plan("train", ()), run.ledger("train"), attempt=1)
    return frozen_layout(work, SingleProcess(0, world), TrainConfig(fit="auto"), layout)


def test_layout_that_fitted_at_the_first_start_is_kept_by_later_ones(tmp_path: Path) -> None:
    first = fitted(tmp_path, 4, Fit(4, False, 1))
    assert (first.micro_batch, first.gradient_checkpointing, first.zero_stage) == (4, False, 1)
    for world, micro in ((4, 4), (2, 4), (8, 2)):
        later = fitted(tmp_path, world, Fit(1, True, 3))
        found = (later.micro_batch, later.gradient_checkpointing, later.zero_stage)
        assert found == (micro, False, 1), "whatever GPUs it has now"
    assert later.global_batch == 16


def test_start_that_fits_nowhere_says_so_and_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing fits"):
        fitted(tmp_path, 4, ConfigError("nothing fits"))
    assert not (tmp_path / "train").exists()


def test_without_fit_the_layout_is_that_of_the_configuration(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    work = Work(run, Plan("train", ()), run.ledger("train"), attempt=1)
    cfg = TrainConfig(gradient_checkpointing=True, zero_stage=3)
    found = frozen_layout(work, SingleProcess(0, 4), cfg, lambda: Fit(4, False, 1))
    assert (found.micro_batch, found.gradient_checkpointing, found.zero_stage) == (2, True, 3)
    assert set(json.loads((tmp_path / "train" / MICRO_BATCH).read_text())) == {
        "micro_batch",
        "ranks",
    }
