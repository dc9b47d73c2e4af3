"""The controller is away for 20 s and more while a run is watched, submitted and requeued."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from chain_runs import NEVER, jobs_of, sarhpc, wait_for, write_profile
from line_runs import make_tiny_model, tiny_run
from mini_slurm import MiniSlurm

from hpc.store.attempts import read_attempts
from hpc.store.rundir import RunDir
from hpc.store.submissions import read_submissions

AWAY_S = 20.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def task_of(cluster: MiniSlurm) -> psutil.Process:
    """The process of the only task that works."""
    for process in cluster.job_processes():
        words = process.cmdline()
        if "submitit.core._submit" in words and "srun" not in words[0]:
            return process
    raise AssertionError("no task runs")


def start_sarhpc(
    cluster: MiniSlurm, env: dict[str, str], *words: str | Path
) -> subprocess.Popen[str]:
    """A command of a user that goes on while other things happen."""
    return subprocess.Popen(
        [sys.executable, "-m", "sarhpc.cli", *map(str, words)],
        env={**cluster.env, "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def logged(run: RunDir, stage: str) -> str:
    return "\n".join(path.read_text() for path in sorted(run.logs(stage).glob("*.log")))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_status_submit_and_requeue_outlast_a_controller_that_is_away(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    scenes = ["simulate.scenes=24", "simulate.scenes_per_line=4", "simulate.size_px=192"]
    worked = tiny_run(tmp_path / "worked", model, [*scenes, "cluster.workers=1"])
    coming = tiny_run(tmp_path / "coming", model)
    (tmp_path / "held").mkdir()
    held = write_profile(tmp_path / "held", NEVER)
    # Without an array and bad nodes the first thing that it needs Slurm for is the submission.
    held.write_text(held.read_text().replace("elements: 2, ", ""))
    state = {"SARHPC_STATE": str(tmp_path / "state")}
    started = sarhpc(cluster, "simulate", worked.root, "--profile", write_profile(tmp_path))
    assert started.returncode == 0, started.stderr
    [job] = read_submissions(worked)[0].jobs
    wait_for(lambda: worked.ledger("simulate").recorded_ids(), 240, "the first scene")

    # It stands still until the controller is gone, so that a fast machine does not end it before.
    task = task_of(cluster)
    task.suspend()
    cluster.stop_controller()
    gone = time.monotonic()
    # What Slurm's node daemon does before a limit or a preemption: one signal to the task.
    task.send_signal(signal.SIGUSR2)
    task.resume()
    submitting = start_sarhpc(cluster, state, "run", coming.root, "--profile", held)
    status = sarhpc(cluster, "status", worked.root)
    assert status.returncode == 0, status.stderr
    assert "no answer from the queue, showing the state on disk" in status.stdout
    assert "scontrol ping" in status.stdout
    time.sleep(max(0.0, gone + AWAY_S - time.monotonic()))
    assert submitting.poll() is None, "it waits for the controller"
    cluster.start_controller()

    _, complained = submitting.communicate(timeout=240)
    assert submitting.returncode == 0, complained
    assert "got no answer, retry in 2 s" in complained
    assert "Traceback" not in complained
    [record] = read_submissions(coming)
    jobs = jobs_of(cluster, "coming")
    assert sorted(entry.job_id for entry in record.jobs) == sorted(jobs)
    assert sorted(comment.rpartition(":")[2] for comment in jobs.values()) == [
        f"{record.token}-{number}" for number in range(7)
    ]

    wait_for(lambda: worked.ledger("simulate").sealed, 300, "the requeued job ends")
    cluster.wait_state(job.job_id, "COMPLETED")
    assert list(jobs_of(cluster, "worked")) == [job.job_id]
    cluster.wait_records(job.job_id, ["REQUEUED", "COMPLETED"])
    assert [row["stop"] for row in read_attempts(worked.stage("simulate")) if "stop" in row] == [
        "PREEMPT"
    ]
    assert "slurm does not answer, retry in 2 s" in logged(worked, "simulate")
    after = sarhpc(cluster, "status", worked.root, "--json")
    assert json.loads(after.stdout)["notes"] == []
