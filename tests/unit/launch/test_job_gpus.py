"""A job with GPUs whose torch sees none ends, and blames what is to blame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_slurm import FakeSlurm, queued
from line_runs import tiny_run

from hpc.cluster import gpu_driver
from hpc.cluster.bad_nodes import BadNodeList
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission
from sarhpc.launch.job import work


@pytest.fixture
def run(fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose stages `train` and `generate` are jobs 12 and 13, on a node with four GPUs."""
    nodes = [{"N": f"n{i}", "T": "idle", "E": "none"} for i in range(4)]
    fake_slurm.change(jobs=[queued("12"), queued("13")], nodes=nodes)
    for name, value in {
        "SLURM_JOB_ID": "12",
        "SLURM_CLUSTER_NAME": "fake",
        "SLURMD_NODENAME": "n1",
        "SLURM_GPUS_ON_NODE": "4",
        "SARHPC_STATE": str(tmp_path / "state"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DS_ACCELERATOR")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = tiny_run(tmp_path / "run", tmp_path / "model", [])
    jobs = tuple(
        SubmittedJob(stage, job, None, None, "submit/0.sbatch", f"{stage}/logs", 1, 0)
        for stage, job in (("train", "12"), ("generate", "13"))
    )
    record = SubmissionRecord(0, now(), "slurm", "mini", "f00d", jobs, "scontrol", grace_s=20.0)
    publish_submission(made, record)
    return made


@pytest.mark.parametrize("in_array", [False, True])
def test_torch_that_does_not_fit_the_driver_ends_the_job_for_good_and_costs_no_node(
    run: RunDir,
    fake_slurm: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    in_array: bool,
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu_driver, "driver_version", lambda: "550.54.15")
    stage = "generate" if in_array else "train"
    if in_array:
        _be_element(monkeypatch)
    assert work(str(run.root), stage, submission=0) == 2
    said = capsys.readouterr().err
    assert "driver is 550.54.15" in said
    assert "CUDA 13.0" in said
    assert "/whl/cu126" in said
    assert not [call for call in fake_slurm.calls("scontrol") if "requeue" in call]
    assert BadNodeList("fake").current() == []


def test_array_element_on_a_node_that_lost_its_gpus_leaves_it(
    run: RunDir, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This torch fits, so the node is at fault; what probes it says the same in its own process.
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu_driver, "driver_version", lambda: "580.65.06")
    driver = fake_slurm.bin / "nvidia-smi"
    driver.write_text("#!/bin/sh\nexit 9\n")
    driver.chmod(0o755)
    _be_element(monkeypatch)
    assert work(str(run.root), "generate", submission=0) == 0
    assert [bad.node for bad in BadNodeList("fake").current()] == ["n1"]
    assert ["scontrol", "requeue", "13"] in fake_slurm.calls("scontrol")


def test_stage_that_computes_on_the_cpu_needs_no_gpu(run: RunDir) -> None:
    # The stages before are not sealed, which is what ends it.
    assert work(str(run.root), "tile", submission=0) == 5


def _be_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "13")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
