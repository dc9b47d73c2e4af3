"""A run that is moved or copied while its jobs wait in the queue of a real Slurm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from chain_runs import NEVER, jobs_of, sarhpc, wait_for, write_profile
from line_runs import make_tiny_model, tiny_run
from mini_slurm import MiniSlurm

from hpc.store.rundir import open_run
from hpc.store.submissions import read_submissions

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_jobs_of_a_moved_run_are_submitted_anew_and_those_of_an_original_stay(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "wanders", make_tiny_model(tmp_path / "model"))
    profile = write_profile(tmp_path, NEVER)
    assert sarhpc(cluster, "run", run.root, "--until", "tile", "--profile", profile).returncode == 0
    waiting = set(jobs_of(cluster, "wanders", "PENDING"))
    assert len(waiting) == 2

    copy = Path(shutil.copytree(run.root, tmp_path / "copy"))
    assert "cancelled: nothing" in sarhpc(cluster, "cancel", copy).stdout
    shown = json.loads(sarhpc(cluster, "status", copy, "--json").stdout)
    assert all(stage["queue"]["jobs"] == [] for stage in shown["stages"])
    assert set(jobs_of(cluster, "wanders", "PENDING")) == waiting, "the original was left alone"

    moved = run.root.rename(tmp_path / "arrived")
    [note] = json.loads(sarhpc(cluster, "status", moved, "--json").stdout)["notes"]
    assert f"this run was at {run.root} when its jobs were submitted" in note
    resumed = sarhpc(cluster, "run", moved, "--until", "tile", "--profile", profile)
    assert resumed.returncode == 0, resumed.stderr
    assert f"this run was moved from {run.root}: cancelled the jobs that work there" in (
        resumed.stdout
    )
    wait_for(
        lambda: not jobs_of(cluster, "wanders", "PENDING"), 30, "the jobs of before leave the queue"
    )
    assert len(jobs_of(cluster, "arrived", "PENDING")) == 2
    assert read_submissions(open_run(moved))[-1].root == str(moved)
    assert json.loads(sarhpc(cluster, "status", moved, "--json").stdout)["notes"] == []
    assert "cancelled: " in sarhpc(cluster, "cancel", moved).stdout
    wait_for(lambda: not jobs_of(cluster, "arrived", "PENDING"), 30, "cancelled")
    assert not run.root.exists()
