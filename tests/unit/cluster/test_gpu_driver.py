"""Whether a build of torch can use the GPUs of a node, and what is said where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpc.cluster import gpu_driver
from hpc.cluster.gpu_driver import TorchBuildError, gpus_of_job, misfit
from hpc.cluster.gpu_probe import probe


@pytest.mark.parametrize(
    ("cuda", "driver", "said"),
    [
        ("13.0", "550.54.15", ["CUDA 13.0", "driver 580", "driver is 550.54.15", "/whl/cu126"]),
        (None, "580.65.06", ["built for no CUDA", "driver is 580.65.06", "/whl/cu130"]),
        ("12.6", "470.82.01", ["CUDA 12.6", "driver 525", "/whl/cu118"]),
        ("12.6", "390.10", ["newer driver"]),
        (None, None, ["no CUDA", "the driver is unknown", "/whl/cu130", "/whl/cu126"]),
    ],
)
def test_build_that_does_not_fit_is_named_with_the_one_to_install(
    cuda: str | None, driver: str | None, said: list[str]
) -> None:
    reason = misfit("2.13.0", cuda, driver)
    assert reason is not None
    assert not [words for words in said if words not in reason], reason


@pytest.mark.parametrize(
    ("cuda", "driver"), [("13.0", "580.65.06"), ("12.6", "580.65.06"), ("13.0", None)]
)
def test_build_that_fits_is_not_to_blame_nor_where_a_node_has_lost_its_driver(
    cuda: str, driver: str | None
) -> None:
    assert misfit("2.13.0", cuda, driver) is None


def test_gpus_are_those_that_slurm_gave_unless_the_cpu_is_asked_for() -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}
    assert gpus_of_job(job) == 4
    assert gpus_of_job({**job, "DS_ACCELERATOR": "cpu"}) == 0
    assert gpus_of_job({"SLURM_JOB_ID": "7"}) == 0
    assert gpus_of_job({"SLURM_GPUS_ON_NODE": "4"}) == 0


def test_driver_is_read_where_the_kernel_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
        "GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)\n"
    )
    monkeypatch.setattr(gpu_driver, "_LOADED_DRIVER", version)
    assert gpu_driver.driver_version() == "550.54.15"
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
    )
    assert gpu_driver.driver_version() == "580.65.06"


def test_probe_tells_a_build_that_does_not_fit_from_a_lost_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu_driver, "driver_version", lambda: "550.54.15")
    with pytest.raises(TorchBuildError, match="550"):
        probe(1)
    monkeypatch.setattr(gpu_driver, "driver_version", lambda: "580.65.06")
    with pytest.raises(RuntimeError, match="torch sees 0 GPUs, 1 were requested"):
        probe(1)
