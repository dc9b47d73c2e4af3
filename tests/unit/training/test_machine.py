"""Options of the engine are refused before it starts where the machine cannot carry them out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpc.errors import ConfigError
from sarhpc.training.config import OffloadConfig, TrainConfig
from sarhpc.training.machine import require_machine

CPU = torch.device("cpu")


def refusal(cfg: TrainConfig) -> str | None:
    """What this machine refuses the options with, if it does."""
    try:
        require_machine(cfg, CPU)
    except ConfigError as error:
        return str(error)
    return None


def test_compiling_for_cpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="gradients are zero"):
        require_machine(TrainConfig(compile=True), CPU)
    assert refusal(TrainConfig()) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have asynchronous disk access")
def test_weights_on_nvme_are_refused_without_asynchronous_disk_access(tmp_path: Path) -> None:
    offload = OffloadConfig(parameters="nvme", nvme_path=str(tmp_path))
    with pytest.raises(ConfigError, match="libaio"):
        require_machine(TrainConfig(zero_stage=3, offload=offload), CPU)


def test_offload_to_memory_needs_nothing() -> None:
    assert refusal(TrainConfig(offload=OffloadConfig())) is None
