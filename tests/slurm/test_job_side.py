"""Jobs on a real Slurm that are preempted, signalled, killed, and come back by themselves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from chain_runs import sarhpc, wait_for, write_profile
from line_runs import make_tiny_model, shard_digests, tiny_run
from mini_slurm import MiniSlurm

from hpc.publish import digest_file
from hpc.run.attempts import read_attempts
from hpc.run.pipeline import run_stage
from hpc.run.rundir import RunDir, open_run
from hpc.run.submissions import SubmittedJob, read_submissions
from sarhpc.stages.registry import load_run_config, stage_named

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PATIENCE_S = 500

STEPS = 120
TRAINING = [
    f"train.max_steps={STEPS}",
    "train.checkpoint_every_steps=20",
    "train.validation_every_steps=0",
    "train.micro_batch=1",
    "cluster.ranks=4",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunDir:
    """A run that is ready to train."""
    run = tiny_run(tmp_path_factory.mktemp("ready") / "run", model, TRAINING)
    for stage in ("simulate", "tile", "caption"):
        run_stage(run, stage_named(load_run_config(run), stage))
    return run


def copy_of(run: RunDir, root: Path) -> RunDir:
    """The same run once more; its shards stay where they are."""
    shutil.copytree(run.root, root)
    root.chmod(0o700)
    return open_run(root)


@pytest.fixture(scope="module")
def undisturbed(captioned: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The training as four processes of this machine make it."""
    run = copy_of(captioned, tmp_path_factory.mktemp("calm") / "run")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "sarhpc.cli", "train", str(run.root), "--executor", "local"]
    done = subprocess.run(
        [*words, "--wait"], env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return run


def four_ranks(folder: Path, partition: str = "main") -> Path:
    """A profile that trains on two nodes with two tasks each."""
    path = write_profile(folder)
    text = path.read_text().replace("partition: main", f"partition: {partition}")
    path.write_text(text.replace("{nodes: 2, tasks_per_node: 1,", "{nodes: 2, tasks_per_node: 2,"))
    return path


def submit(cluster: MiniSlurm, run: RunDir, stage: str, profile: Path) -> SubmittedJob:
    done = sarhpc(cluster, stage, run.root, "--profile", profile)
    assert done.returncode == 0, done.stderr
    return read_submissions(run)[-1].of(stage)[0]


def newest_step(run: RunDir) -> int:
    steps = (run.stage("train") / "checkpoints").glob("step_*[0-9]")
    return max((int(path.name[5:]) for path in steps), default=0)


def logged(run: RunDir, stage: str) -> str:
    return "\n".join(path.read_text() for path in sorted(run.logs(stage).glob("*.log")))


def weights(run: RunDir) -> dict[str, str]:
    """SHA-256 of every file of the last checkpoint but the manifest, which tells the time."""
    [record] = run.ledger("train").records().values()
    files = (path for path in Path(record.path).rglob("*") if path.is_file())
    return {
        path.relative_to(record.path).as_posix(): digest_file(path).sha256
        for path in files
        if path.name != "MANIFEST.json"
    }


def ranks_of(cluster: MiniSlurm) -> dict[int, psutil.Process]:
    """Processes of the running tasks by rank."""
    found = {}
    for process in cluster.job_processes():
        try:
            words, env = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        if "submitit.core._submit" in words and "srun" not in words[0]:
            found[int(env["SLURM_PROCID"])] = process
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; the dead may wait long to be reaped."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_training_preempted_twice_ends_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path, cluster: MiniSlurm, captioned: RunDir, undisturbed: RunDir
) -> None:
    run = copy_of(captioned, tmp_path / "run")
    job = submit(cluster, run, "train", four_ranks(tmp_path, "low")).job_id
    for preemption in (1, 2):
        before = newest_step(run)
        wait_for(lambda b=before: newest_step(run) > b, PATIENCE_S, f"attempt {preemption} saves")
        taker = cluster.submit(
            "-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap=sleep 1"
        )
        cluster.wait_state(taker, timeout_s=90)
    wait_for(lambda: run.ledger("train").sealed, PATIENCE_S, "the third attempt ends")
    cluster.wait_state(job, "COMPLETED")
    assert cluster.job(job)["Restarts"] == "2"
    ends = [row for row in read_attempts(run.stage("train")) if "to" in row]
    assert [row.get("stop") for row in ends] == ["PREEMPT", "PREEMPT", None]
    assert ends[-1]["exit"] == 0
    assert weights(run) == weights(undisturbed)


def test_usr2_to_one_rank_of_four_saves_one_step_and_all_are_gone_within_5_s(
    tmp_path: Path, cluster: MiniSlurm, captioned: RunDir
) -> None:
    run = copy_of(captioned, tmp_path / "run")
    job = submit(cluster, run, "train", four_ranks(tmp_path)).job_id
    metrics = run.stage("train") / "metrics.jsonl"
    wait_for(metrics.exists, PATIENCE_S, "the first step")
    ranks = ranks_of(cluster)
    assert sorted(ranks) == [0, 1, 2, 3]
    ranks[2].send_signal(signal.SIGUSR2)
    latest = run.stage("train") / "checkpoints" / "latest"
    wait_for(latest.exists, 60, "the save")
    saved = latest.stat().st_mtime
    wait_for(lambda: not any(map(is_alive, ranks.values())), 60, "all ranks gone")
    assert time.time() - saved < 5
    cluster.wait_state(job, "COMPLETED", timeout_s=PATIENCE_S)
    assert cluster.job(job)["Restarts"] == "1"
    starts = re.findall(r"training resumes step=(\d+)", logged(run, "train"))
    assert len(starts) == 1


def test_a_rank_killed_while_it_saves_costs_one_interval_and_the_job_comes_back(
    tmp_path: Path, cluster: MiniSlurm, captioned: RunDir, undisturbed: RunDir
) -> None:
    run = copy_of(captioned, tmp_path / "run")
    # The second save of the job's first start; later starts find the mark and live.
    fault = "checkpoint.rank_write:2:kill"
    profile = four_ranks(tmp_path)
    script = (
        f'if [ "$SLURM_RESTART_COUNT" = "" ] && [ "$SLURM_PROCID" = 3 ]; then '
        f"export SARHPC_FAULT={fault}; fi"
    )
    prolog = tmp_path / "task-prolog.sh"
    prolog.write_text(f'#!/bin/bash\n{script}\n[ "$SARHPC_FAULT" ] && '
                      'echo "export SARHPC_FAULT=$SARHPC_FAULT"\ntrue\n')  # fmt: skip
    prolog.chmod(0o755)
    profile.write_text(
        profile.read_text().replace("env: {", f"env: {{SLURM_TASK_PROLOG: {prolog}, ")
    )
    job = submit(cluster, run, "train", profile).job_id
    wait_for(lambda: run.ledger("train").sealed, PATIENCE_S, "the training ends")
    cluster.wait_state(job, "COMPLETED")
    assert cluster.job(job)["Restarts"] == "1"
    assert "training resumes step=20" in logged(run, "train")
    assert weights(run) == weights(undisturbed)


def test_tiles_cut_on_two_nodes_are_those_of_one_machine(
    tmp_path: Path, cluster: MiniSlurm, captioned: RunDir, model: Path
) -> None:
    run = tiny_run(tmp_path / "run", model, TRAINING)
    run_stage(run, stage_named(load_run_config(run), "simulate"))
    profile = write_profile(tmp_path)
    profile.write_text(
        profile.read_text() + "  tile: {nodes: 2, tasks_per_node: 1, cpus_per_task: 1, mem_gb: 1}\n"
    )
    job = submit(cluster, run, "tile", profile).job_id
    wait_for(lambda: run.ledger("tile").sealed, PATIENCE_S, "the tiles")
    cluster.wait_state(job, "COMPLETED")
    assert shard_digests(run, "tile") == shard_digests(captioned, "tile")
    hosts = {record.host for record in run.ledger("tile").records().values()}
    if cluster.spec.isolate == "uts":
        assert len(hosts) == 2
    assert list((run.root / "dask").iterdir()) == []
