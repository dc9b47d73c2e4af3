"""A job looks at the disk of its node that it is to copy shards to, before it works."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, queued
from line_runs import tiny_run

from hpc.store.rundir import RunDir, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission
from sarhpc.launch.job import work


def submitted(root: Path, stage: str) -> RunDir:
    """A run whose `stage` is job 12."""
    run = tiny_run(root, root / "model", ["cluster.node_local=$NODE_DISK/shards"])
    job = SubmittedJob(stage, "12", None, None, "submit/0.sbatch", f"{stage}/logs", 1, 0)
    publish_submission(
        run, SubmissionRecord(0, now(), "slurm", "mini", "f00d", (job,), "scontrol", grace_s=20.0)
    )
    return run


@pytest.fixture
def _on_a_node(fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"N": f"n{i}", "T": "idle", "E": "none"} for i in range(4)]
    fake_slurm.change(jobs=[queued("12")], nodes=nodes)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "fake")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))
    (tmp_path / "broken").write_text("not a folder: the disk was not mounted")


@pytest.mark.usefixtures("_on_a_node")
def test_a_node_whose_own_disk_is_broken_is_left_by_the_job_that_copies_to_it(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "broken"))
    run = submitted(tmp_path / "run", "train")
    assert work(str(run.root), "train", submission=0) == 0
    asked = fake_slurm.calls("scontrol")
    assert ["scontrol", "requeue", "12"] in asked
    assert ["scontrol", "update", "JobId=12", "ExcNodeList=n1"] in asked


@pytest.mark.usefixtures("_on_a_node")
@pytest.mark.parametrize(
    ("stage", "disk"), [("train", "new/and/empty"), ("train", ""), ("tile", "broken")]
)
def test_a_fit_disk_none_at_all_or_one_that_is_not_used_costs_no_job_its_node(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, disk: str
) -> None:
    if disk:
        monkeypatch.setenv("NODE_DISK", str(tmp_path / disk))
    run = submitted(tmp_path / "run", stage)
    # The stages before are not sealed, which is what ends these.
    assert work(str(run.root), stage, submission=0) == 5
    assert ["scontrol", "requeue", "12"] not in fake_slurm.calls("scontrol")
