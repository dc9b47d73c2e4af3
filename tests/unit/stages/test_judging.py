"""Validation grids that cannot be judged do not end a training."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from speckle_tiles import tiles

from hpc.store.rundir import RunDir
from sarhpc.stages.judging import grid_judge
from sarhpc.training.config import JudgeConfig, TrainConfig


def test_a_grid_with_a_constant_image_is_not_judged_and_says_which(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judge = grid_judge(RunDir(tmp_path), TrainConfig(judge=JudgeConfig()))
    assert judge is not None
    images = tiles(0, 6)
    images[[1, 4]] = 0
    with caplog.at_level(logging.WARNING):
        assert judge(np.stack(images)) is None
    assert "images [1, 4] are constant" in caplog.text
