"""Preemption: elements that jobs of a higher priority push aside, and a run of 200 preemptions."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chain_runs import sarhpc, wait_for, write_profile
from line_runs import tiny_run
from mini_slurm import MiniSlurm
from model_folders import model_layout

from hpc.job.pipeline import run_stage
from hpc.store.attempts import read_attempts
from hpc.store.rundir import RunDir
from hpc.store.submissions import read_submissions
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

TILING = ["simulate.scenes=24", "simulate.size_px=256", "tile.shard_samples=4",
          "cluster.workers=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def model_folder(tmp_path: Path) -> None:
    """A base model that is there when a run is submitted; no test here trains."""
    model_layout(tmp_path / "model")


def digests(run: RunDir, stage: str) -> dict[str, str]:
    return {shard: record.sha256 for shard, record in run.ledger(stage).records().items()}


def in_process(run: RunDir, *stages: str) -> None:
    for name in stages:
        run_stage(run, stage_named(load_run_config(run), name))


def wait_for_progress(run: RunDir) -> None:
    """One more tile shard than now, or all."""
    ledger = run.ledger("tile")
    made = len(ledger.recorded_ids())
    wait_for(lambda: len(ledger.recorded_ids()) > made or ledger.sealed, 240, "a shard")


def preempt_all(cluster: MiniSlurm) -> None:
    """Jobs of a higher priority take every node for a moment."""
    urgent = cluster.submit(
        "-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"
    )
    cluster.wait_state(urgent, "COMPLETED", timeout_s=400)


def restarts(cluster: MiniSlurm, job: str) -> int:
    """Times that Slurm has started the job again; of an array, all its elements."""
    rows = cluster.run("squeue", "-h", "-r", "-j", job, "-O", "RestartCnt", check=False).stdout
    return sum(int(word) for word in rows.split() if word.isdigit())


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_an_array_that_is_preempted_again_and_again_makes_the_same_tiles(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    calm = tiny_run(tmp_path / "calm", tmp_path / "model", TILING)
    in_process(calm, "simulate", "tile")
    run = tiny_run(tmp_path / "pushed", tmp_path / "model", TILING)
    in_process(run, "simulate")
    profile = write_profile(tmp_path, "  tile: {elements: 6, mem_gb: 1, time_min: 20}\n")
    profile.write_text(profile.read_text().replace("partition: main", "partition: scavenge", 1))
    done = sarhpc(cluster, "tile", run.root, "--profile", profile)
    assert done.returncode == 0, done.stderr
    [job] = read_submissions(run)[0].of("tile")
    ledger, times = run.ledger("tile"), 0
    while not ledger.sealed and times < 10:
        wait_for_progress(run)
        preempt_all(cluster)
        times += 1
    wait_for(lambda: ledger.sealed, 600, "every shard")
    assert len(read_submissions(run)) == 1, "nobody had to submit anything again"
    assert digests(run, "tile") == digests(calm, "tile")
    started = [row for row in read_attempts(run.stage("tile")) if "from" in row]
    print(f"{times} preemptions of job {job.job_id}, {len(started)} starts of 6 elements")
    assert times >= 3
    assert len(started) > 6


def preempted(cluster: MiniSlurm, run: RunDir, job: str, times: int) -> int:
    """Requeue a job that often, each time as soon as it has made progress; how often it was."""
    ledger, count, made = run.ledger("simulate"), 0, 0
    until = time.monotonic() + 60 * times
    while count < times and not ledger.sealed:
        assert time.monotonic() < until, f"{count} of {times} preemptions, {made} shards"
        if (now := len(ledger.recorded_ids())) > made:
            made = now
            # Refused while it ends, or waits for its next start.
            count += cluster.run("scontrol", "requeue", job, check=False).returncode == 0
        time.sleep(0.1)
    return count


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_a_healthy_run_that_is_preempted_200_times_goes_on_and_completes(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    times = 200
    words = [f"simulate.scenes={4 * times}", "simulate.size_px=256", "cluster.workers=1"]
    run = tiny_run(tmp_path / "healthy", tmp_path / "model", words)
    done = sarhpc(cluster, "simulate", run.root, "--profile", write_profile(tmp_path))
    assert done.returncode == 0, done.stderr
    [job] = read_submissions(run)[0].of("simulate")
    begun = time.monotonic()
    assert preempted(cluster, run, job.job_id, times) == times
    print(f"{times} preemptions in {time.monotonic() - begun:.0f} s")
    wait_for(lambda: run.ledger("simulate").sealed, 1200, "it completes")
    assert len(read_submissions(run)) == 1
    numbers = [row["attempt"] for row in read_attempts(run.stage("simulate")) if "from" in row]
    assert max(numbers) >= 0.9 * times, "requests that came before an attempt began count for none"
