"""Folders that fail under jobs of a real Slurm: not writable, or on a disk that is full."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from chain_runs import jobs_of, sarhpc, wait_for, write_profile
from line_runs import make_tiny_model, tiny_run
from mini_slurm import MiniSlurm
from small_disk import fill, shared_disk
from training_runs import logged

from hpc.store.attempts import read_attempts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SOON = "options: {begin: now+4}\n"
"""Jobs start when the test has done its damage."""


def set_immutable(folder: Path, immutable: bool) -> None:
    """Whether no file can be made in `folder`, not even by the superuser."""
    sign = "+" if immutable else "-"
    try:
        done = subprocess.run(["chattr", f"{sign}i", str(folder)], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no chattr here")
    if done.returncode:
        pytest.skip(f"this file system has no immutable folders: {done.stderr!r}")


def test_a_run_folder_that_became_unwritable_ends_the_job_and_blames_no_node(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "unwritable", make_tiny_model(tmp_path / "model"))
    profile = write_profile(tmp_path, "  simulate: {cpus_per_task: 1, mem_gb: 1}\n", SOON)
    state = {"SARHPC_STATE": str(tmp_path / "state")}
    done = sarhpc(cluster, "simulate", run.root, "--profile", profile, env=state)
    assert done.returncode == 0, done.stderr
    [job] = jobs_of(cluster, run.name)
    set_immutable(run.root, True)
    try:
        cluster.wait_state(job, "FAILED", timeout_s=240)
    finally:
        set_immutable(run.root, False)
    # One start to see it, one on another node to know that it is the folder.
    cluster.wait_records(job, ["REQUEUED", "FAILED"])
    log = logged(run, "simulate")
    assert "the folder is at fault, no node is excluded" in log
    assert f"Check owner, mode, quota and mount of {run.root}" in log
    assert not (tmp_path / "state" / "bad_nodes").exists()

    again = sarhpc(cluster, "simulate", run.root, "--profile", profile, env=state)
    assert again.returncode == 0, again.stderr
    wait_for(lambda: run.ledger("simulate").sealed, 120, "sealed once the folder was mended")


def test_a_job_on_a_full_disk_comes_back_and_ends_well_once_there_is_space(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    slurmds = [found.pid for node in cluster.nodes if (found := cluster.daemon(f"slurmd.{node}"))]
    with shared_disk(tmp_path / "disk", 64, slurmds) as disk:
        run = tiny_run(disk / "full", make_tiny_model(tmp_path / "model"))
        profile = write_profile(tmp_path, "  simulate: {cpus_per_task: 1, mem_gb: 1}\n", SOON)
        state = {"SARHPC_STATE": str(tmp_path / "state")}
        done = sarhpc(cluster, "simulate", run.root, "--profile", profile, env=state)
        assert done.returncode == 0, done.stderr
        [job] = jobs_of(cluster, run.name)
        # The records and the log of the job still fit, a scene does not.
        filling = fill(disk, leave_bytes=200_000)
        wait_for(lambda: "no space left" in logged(run, "simulate"), 120, "a shard has failed")
        filling.unlink()
        wait_for(lambda: run.ledger("simulate").sealed, 120, "it came back by itself")
        cluster.wait_records(job, ["REQUEUED", "COMPLETED"])
        ends = [row for row in read_attempts(run.stage("simulate")) if "to" in row]
        assert ends[-1]["exit"] == 0
        assert not (tmp_path / "state" / "bad_nodes").exists()
