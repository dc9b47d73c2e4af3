"""Options of the engine are refused before it starts where the machine cannot carry them out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpc.errors import ConfigError
from sarhpc.training.config import OffloadConfig, TrainConfig
from sarhpc.training.machine import require_machine

CPU = torch.device("cpu")


def test_compiling_for_cpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="gradients are zero"):
        require_machine(TrainConfig(compile=True), CPU)
    require_machine(TrainConfig(), CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have asynchronous disk access")
def test_weights_on_nvme_are_refused_without_asynchronous_disk_access(tmp_path: Path) -> None:
    offload = OffloadConfig(parameters="nvme", nvme_path=str(tmp_path))
    with pytest.raises(ConfigError, match="libaio"):
        require_machine(TrainConfig(zero_stage=3, offload=offload), CPU)


def test_offload_to_memory_needs_nothing() -> None:
    require_machine(TrainConfig(offload=OffloadConfig()), CPU)
