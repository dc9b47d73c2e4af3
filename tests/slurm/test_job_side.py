"""Jobs on a real Slurm that are preempted, timed out, signalled, killed, and come back alone."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from chain_runs import wait_for
from mini_slurm import MiniSlurm
from slowness import slowness
from training_runs import (
    INTERVAL,
    PATIENCE_S,
    copy_of,
    logged,
    newest_step,
    profile_of,
    submit,
    submit_to_export,
    wait_for_checkpoint,
    weights,
)

from hpc.store.attempts import read_attempts
from hpc.store.rundir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


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


def freeze_tasks(cluster: MiniSlurm) -> None:
    """The tasks stand still, as at a file system that does not answer, until Slurm signals them."""
    for task in ranks_of(cluster).values():
        task.send_signal(signal.SIGSTOP)


def preempt(cluster: MiniSlurm, job: str) -> None:
    """A job of a higher partition takes every node for a second."""
    taker = cluster.submit("-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap=sleep 1")
    # It saves and requeues itself within the grace time, so accounting says no more than REQUEUED,
    # and what `scontrol show job` says of a preemption is gone once it waits again.
    word = f"preemption grace time for JobId={job} to reclaim resources for JobId={taker}"
    wait_for(lambda: word in cluster.controller_log(50_000), 30, "Slurm preempts the job")
    cluster.wait_state(taker, timeout_s=180)


def exceed_the_limit(cluster: MiniSlurm, job: str) -> None:
    """Slurm's own time limit ends this start of the job; the next one has time again."""
    freeze_tasks(cluster)
    cluster.shorten(job)
    cluster.wait_state(job, "PENDING", timeout_s=180)
    assert f"Time limit exhausted for JobId={job}" in cluster.controller_log(50_000)
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=20")


def test_a_training_preempted_twice_and_timed_out_ends_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path, cluster: MiniSlurm, ready_training: RunDir, calm_training: RunDir
) -> None:
    run = copy_of(ready_training, tmp_path / "run")
    profile = profile_of(tmp_path, 1, partition="low")
    job, export = submit_to_export(cluster, run, profile)
    step = wait_for_checkpoint(run)
    preempt(cluster, job)
    step = wait_for_checkpoint(run, max(step, newest_step(run)))
    exceed_the_limit(cluster, job)
    wait_for_checkpoint(run, max(step, newest_step(run)))
    preempt(cluster, job)
    cluster.wait_state(job, timeout_s=PATIENCE_S)
    cluster.wait_state(export, timeout_s=PATIENCE_S)

    assert cluster.job(job)["Restarts"] == "3"
    cluster.wait_records(job, ["REQUEUED", "REQUEUED", "REQUEUED", "COMPLETED"])
    ends = [row for row in read_attempts(run.stage("train")) if "to" in row]
    first, limit, *others = [row.get("stop") for row in ends]
    assert (first, *others) == ("PREEMPT", "PREEMPT", None)
    # Past its limit a job hears the announced USR2 and TERM in the same second, in either order.
    assert limit in ("TERMINATE", "PREEMPT")
    assert [row["exit"] for row in ends] == [0, 0, 0, 0]
    assert run.ledger("export").sealed
    assert weights(run) == weights(calm_training)


def test_usr2_to_one_rank_saves_one_step_and_all_are_gone_within_5_s(
    tmp_path: Path, cluster: MiniSlurm, ready_training: RunDir
) -> None:
    run = copy_of(ready_training, tmp_path / "run")
    job = submit(cluster, run, "train", profile_of(tmp_path, 1)).job_id
    metrics = run.stage("train") / "metrics.jsonl"
    wait_for(metrics.exists, PATIENCE_S, "the first step")
    ranks = ranks_of(cluster)
    assert sorted(ranks) == [0, 1]
    ranks[1].send_signal(signal.SIGUSR2)
    latest = run.stage("train") / "checkpoints" / "latest"
    wait_for(latest.exists, 60, "the save")
    saved = latest.stat().st_mtime
    wait_for(lambda: not any(map(is_alive, ranks.values())), 60, "all ranks gone")
    assert time.time() - saved < 5 * slowness()
    cluster.wait_state(job, "COMPLETED", timeout_s=PATIENCE_S)
    assert cluster.job(job)["Restarts"] == "1"
    starts = re.findall(r"training resumes step=(\d+)", logged(run, "train"))
    assert len(starts) == 1


def test_a_rank_killed_while_it_saves_costs_one_interval_and_the_job_comes_back(
    tmp_path: Path, cluster: MiniSlurm, ready_training: RunDir, calm_training: RunDir
) -> None:
    run = copy_of(ready_training, tmp_path / "run")
    # The second save of the job's first start; later starts find the mark and live.
    fault = "checkpoint.rank_write:2:kill"
    profile = profile_of(tmp_path, 1)
    script = (
        f'if [ "$SLURM_RESTART_COUNT" = "" ] && [ "$SLURM_PROCID" = 1 ]; then '
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
    assert f"training resumes step={INTERVAL} " in logged(run, "train")
    assert weights(run) == weights(calm_training)
