"""A checkpoint file that would run code is refused, and none of it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc.errors import VerificationError
from sarhpc.training.checkpoints.pickles import read_pickle


class _Trap:
    """Would write a file if it were unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sprung),)


@pytest.mark.parametrize("mmap", [False, True])
def test_no_code_of_a_checkpoint_runs(tmp_path: Path, mmap: bool) -> None:
    file, sprung = tmp_path / "mp_rank_00_model_states.pt", tmp_path / "sprung"
    torch.save({"module": {"w": torch.ones(2)}, "more": _Trap(sprung)}, file)
    with pytest.raises(VerificationError, match=r"mp_rank_00.*none of it was run") as error:
        read_pickle(file, mmap=mmap)
    assert "mkdir" in str(error.value)
    assert not sprung.exists()


def test_what_deepspeed_writes_is_read(tmp_path: Path) -> None:
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum

    file = tmp_path / "optim_states.pt"
    torch.save({"scaler": LossScaler(1.0), "stage": ZeroStageEnum.gradients}, file)
    states = read_pickle(file)
    assert states["stage"] == ZeroStageEnum.gradients
    assert states["scaler"].cur_scale == 1.0
