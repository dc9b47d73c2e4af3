"""`--wait` on a cluster: left by Ctrl-C, come back to, stopped by two."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_runs import jobs_of, wait_for, write_profile
from line_runs import tiny_run
from mini_slurm import MiniSlurm
from terminals import CTRL_C, Terminal

from hpc.store.rundir import RunDir

SCENES = ["simulate.scenes=400", "simulate.scenes_per_line=4", "simulate.size_px=192"]
VIEW = "Ctrl-C detaches, twice stops the run"


def scenes(run: RunDir) -> int:
    return len(run.ledger("simulate").recorded_ids())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_are_left_come_back_to_and_stopped(cluster: MiniSlurm, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tmp_path / "model", SCENES)
    profile = write_profile(tmp_path)
    words = ("run", run.root, "--profile", profile, "--until", "tile", "--wait")
    with Terminal(*words, env=cluster.env) as first:
        first.read_for(VIEW)
        first.read_until(lambda: scenes(run), "the first scene")
        first.type(CTRL_C)
        assert first.exit_code() == 130
    assert f"sarhpc status {run.root} --watch" in first.text
    assert len(jobs_of(cluster, "run", "RUNNING")) == 1

    with Terminal(*words, env=cluster.env) as second:
        second.read_for("nothing to submit")
        second.read_for(VIEW)
        assert "RUNNING" in second.text
        assert "PENDING" in second.text
        second.type(CTRL_C)
        second.read_for("goes on without this terminal")
        second.type(CTRL_C)
        assert second.exit_code() == 0
    assert "signalled to save and exit" in second.text
    assert f"next    sarhpc resume {run.root}" in second.text
    wait_for(lambda: not jobs_of(cluster, "run", "RUNNING,PENDING"), 60, "the queue is empty")
    assert 0 < scenes(run) < 400
