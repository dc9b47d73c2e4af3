"""A job that cannot even start gives up on a real Slurm, and says so in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_runs import sarhpc
from mini_slurm import MiniSlurm
from training_runs import PATIENCE_S, copy_of, profile_of, submit

from hpc.store.attempts import read_attempts
from hpc.store.rundir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_three_crashes_at_the_start_are_enough_and_status_says_so_in_one_line(
    tmp_path: Path, cluster: MiniSlurm, ready_training: RunDir
) -> None:
    run = copy_of(ready_training, tmp_path / "run")
    profile = profile_of(tmp_path, 1)
    text = profile.read_text().replace("DS_ACCELERATOR: cpu", "DS_ACCELERATOR: abacus")
    profile.write_text(text.replace("train: {nodes: 2", "train: {nodes: 1"))
    job = submit(cluster, run, "train", profile).job_id
    cluster.wait_state(job, "FAILED", timeout_s=PATIENCE_S)
    cluster.wait_records(job, ["REQUEUED", "REQUEUED", "FAILED"])
    ends = [row for row in read_attempts(run.stage("train")) if "to" in row]
    assert [(row["to"], row["exit"]) for row in ends] == [(0, 1)] * 3
    shown = sarhpc(cluster, "status", run.root)
    assert shown.returncode == 0, shown.stderr
    [line] = [line for line in shown.stdout.split("!") if "no progress" in line]
    said = "".join(line.split())  # it is folded to 80 columns
    assert f"{run.stage('train')}:3attemptsinarow" in said
    assert "abacus" in said
    assert f"sarhpcresume{run.root}--force" in said
