"""A run on this machine and the terminal that it was started from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_runs import tiny_run
from terminals import CTRL_C, Terminal

from hpc.store.local_jobs import live_local_jobs
from hpc.store.rundir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCENES = ["simulate.scenes=400", "simulate.scenes_per_line=4", "simulate.size_px=192",
          "cluster.workers=1"]  # fmt: skip
SIMULATE = ("--until", "simulate", "--executor", "local", "--wait")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    made = tiny_run(tmp_path / "run", tmp_path / "model", SCENES)
    yield made
    made.stop_file.touch()
    for job in live_local_jobs(made):
        os.kill(job.pid, signal.SIGTERM)


def scenes(run: RunDir) -> int:
    return len(run.ledger("simulate").recorded_ids())


def test_a_run_outlives_its_terminal_and_is_come_back_to_left_and_stopped(run: RunDir) -> None:
    with Terminal("run", run.root, *SIMULATE) as first:
        first.read_until(lambda: scenes(run), "the first scene")
        first.read_for("Ctrl-C detaches, twice stops the run")
        first.hang_up()
    [driver] = live_local_jobs(run)
    before = scenes(run)

    with Terminal("run", run.root, *SIMULATE) as second:
        second.read_for("is worked on by process")
        second.read_for("Ctrl-C detaches")
        second.read_until(lambda: scenes(run) > before, "the run goes on")
        second.type(CTRL_C)
        assert second.exit_code() == 130
    assert f"sarhpc status {run.root} --watch" in second.text
    assert [job.pid for job in live_local_jobs(run)] == [driver.pid]
    before = scenes(run)

    with Terminal("run", run.root, *SIMULATE) as third:
        third.read_for("Ctrl-C detaches")
        third.read_until(lambda: scenes(run) > before, "the run went on")
        third.type(CTRL_C)
        third.read_for("goes on without this terminal")
        third.type(CTRL_C)
        assert third.exit_code() == 0
    assert "stopping; work saves first" in third.text
    assert f"next    sarhpc resume {run.root}" in third.text
    assert "hours" in third.text
    assert run.stop_file.exists()
    assert live_local_jobs(run) == []
    assert 0 < scenes(run) < 400


def test_where_there_is_no_terminal_lines_tell_the_progress_and_the_end(tmp_path: Path) -> None:
    few = ["simulate.scenes=4", "simulate.size_px=160", "cluster.workers=1"]
    run = tiny_run(tmp_path / "run", tmp_path / "model", few)
    command = [sys.executable, "-m", "sarhpc.cli", "run", str(run.root), *SIMULATE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " simulate=" in line]
    assert "simulate=COMPLETE:4 tile=" in lines[-1]
    assert "=inf" not in done.stdout + done.stderr
    assert "nan" not in done.stdout
    last = done.stdout.splitlines()[-2:]
    assert last[0].split()[0] == "hours"
    assert last[1] == (
        f"  next    sarhpc run {run.quoted}  # tile, caption, train, export, generate, evaluate"
    )


def test_a_debug_run_saves_and_ends_with_ctrl_c(run: RunDir) -> None:
    with Terminal("simulate", run.root, "--executor", "debug") as terminal:
        terminal.read_until(lambda: scenes(run), "the first scene")
        terminal.type(CTRL_C)
        assert terminal.exit_code() == 0
    assert "stopping; work saves first" in terminal.text
    assert 0 < scenes(run) < 400
