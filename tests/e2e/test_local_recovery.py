"""A run on this machine that is stopped or killed, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from line_runs import tiny_run
from model_folders import model_layout

from hpc.store.local_jobs import live_local_jobs
from hpc.store.rundir import RunDir
from hpc.store.supervision import read_resubmissions

SCENES = ["simulate.scenes=12", "simulate.scenes_per_line=4", "simulate.size_px=192",
          "cluster.workers=1"]  # fmt: skip


def sarhpc(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """One command; its pipes end with it, although the jobs that it starts go on."""
    command = [sys.executable, "-m", "sarhpc.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not in {seconds:.0f} s: {what}"
        time.sleep(0.1)


def processes(run: RunDir) -> list[psutil.Process]:
    """Every process of the run's jobs, parents before children."""
    found = [psutil.Process(job.pid) for job in live_local_jobs(run)]
    for path in run.root.glob("*/logs/*_submitted.pkl"):
        pid = int(path.name.split("_")[0])
        if psutil.pid_exists(pid):
            found.append(psutil.Process(pid))
    return [p for parent in found for p in (parent, *parent.children(recursive=True))]


@pytest.fixture(autouse=True)
def model_folder(tmp_path: Path) -> None:
    """A base model that is there when a run is submitted; no test here trains."""
    model_layout(tmp_path / "model")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[RunDir]:
    """A run whose first stage has made a scene; its processes are suspended."""
    run = tiny_run(tmp_path / "run", tmp_path / "model", SCENES)
    assert sarhpc("run", run.root, "--until", "tile", "--executor", "local").returncode == 0
    wait_for(lambda: run.ledger("simulate").recorded_ids(), "the first scene")
    for process in processes(run):
        process.suspend()
    yield run
    kill(run)


def kill(run: RunDir) -> None:
    for process in processes(run):
        if process.is_running():
            os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not live_local_jobs(run), "every process is gone")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_resume_right_after_stop_waits_for_the_driver_that_ends(started: RunDir) -> None:
    again = sarhpc("run", started.root, "--executor", "local")
    assert "is worked on by process" in again.stdout
    [before] = live_local_jobs(started)
    suspended = processes(started)
    assert sarhpc("stop", started.root).returncode == 0
    resumed = sarhpc("resume", started.root, "--executor", "local")
    assert resumed.returncode == 0, resumed.stderr
    assert len(live_local_jobs(started)) == 2
    for process in suspended:
        process.resume()
    wait_for(lambda: started.ledger("tile").sealed, "the run goes on")
    [log] = [
        path
        for path in (started.root / "logs").glob("*.err")
        if f"waiting for process {before.pid}" in path.read_text()
    ]
    assert "RunInUseError" not in log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_supervisor_starts_a_killed_driver_again(started: RunDir) -> None:
    assert json.loads(sarhpc("status", started.root, "--json").stdout)["on_its_way"] is True
    kill(started)
    status = sarhpc("status", started.root)
    assert "nothing is on its way" in status.stdout
    words = ("--executor", "local", "--until", "tile", "--every", "0.5")
    supervised = sarhpc("supervise", started.root, *words)
    assert supervised.returncode == 0, supervised.stdout + supervised.stderr
    did, sealed = supervised.stdout.splitlines()
    assert "simulate: its last attempt wrote no end row; started again as process" in did
    assert sealed.endswith("every submitted stage is sealed")
    assert started.ledger("tile").sealed
    [row] = read_resubmissions(started)
    assert (row.stage, row.submission) == ("simulate", None)
