"""What ends a job short of its stage, and the chain that goes on without a person's command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from chain_runs import NEVER, jobs_of, sarhpc, shim, wait_for, write_profile
from line_runs import tiny_run
from mini_slurm import MiniSlurm
from model_folders import model_layout

from hpc.job.pipeline import run_stage
from hpc.store.attempts import read_attempts
from hpc.store.rundir import RunDir
from hpc.store.submissions import read_submissions
from hpc.store.supervision import read_resubmissions
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

SCENES = ["simulate.scenes=12", "simulate.scenes_per_line=4", "simulate.size_px=192",
          "cluster.workers=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def model_folder(tmp_path: Path) -> None:
    """A base model that is there when a run is submitted; no test here trains."""
    model_layout(tmp_path / "model")


def batch_scripts(cluster: MiniSlurm) -> list[psutil.Process]:
    """The shells that run the scripts of jobs."""
    return [p for p in cluster.job_processes() if "slurm_script" in " ".join(p.cmdline())]


def tasks(cluster: MiniSlurm) -> list[psutil.Process]:
    """The processes of the tasks that work."""
    found = []
    for process in cluster.job_processes():
        words = process.cmdline()
        if "submitit.core._submit" in words and "srun" not in words[0]:
            found.append(process)
    return found


def kill_batch_script(cluster: MiniSlurm, run: RunDir) -> None:
    """SIGKILL for the script of the only job that works, once it has made a scene."""
    wait_for(lambda: run.ledger("simulate").recorded_ids(), 240, "the first scene")
    [script] = batch_scripts(cluster)
    script.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_next_job_submits_again_what_a_killed_batch_script_lost(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "killed", tmp_path / "model", SCENES)
    words = ("--until", "tile", "--profile", write_profile(tmp_path))
    assert sarhpc(cluster, "run", run.root, *words).returncode == 0
    kill_batch_script(cluster, run)
    wait_for(lambda: run.ledger("tile").sealed, 240, "the chain goes on by itself")
    lost, repaired = read_submissions(run)
    assert [job.stage for job in lost.jobs] == [job.stage for job in repaired.jobs]
    [row] = read_resubmissions(run)
    assert (row.stage, row.submission) == ("simulate", 1)
    assert "FAILED" in row.why


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_is_killed_before_its_attempt_begins_is_requeued_by_its_script(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "early", tmp_path / "model", [*SCENES[1:], "simulate.scenes=4"])
    python = tmp_path / "python"
    killed_once = f"if mkdir '{tmp_path}/killed' 2> /dev/null; then kill -9 $$; fi"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *submitit*) {killed_once} ;; esac\n'
        f"exec '{sys.executable}' \"$@\"\n"
    )
    python.chmod(0o755)
    profile = write_profile(tmp_path, f"python: '{python}'\n")
    assert sarhpc(cluster, "simulate", run.root, "--profile", profile).returncode == 0
    wait_for(lambda: run.ledger("simulate").sealed, 240, "it starts again")
    assert len(read_submissions(run)) == 1
    [start, _] = read_attempts(run.stage("simulate"))
    assert start["restart"] == 1, "the first start recorded none"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_killed_element_of_an_array_lost_is_made_without_a_command(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "element", tmp_path / "model", SCENES)
    run_stage(run, stage_named(load_run_config(run), "simulate"))
    profile = write_profile(tmp_path, "  tile: {elements: 4, mem_gb: 1}\n")
    words = ("--from", "tile", "--until", "caption", "--profile", profile)
    assert sarhpc(cluster, "run", run.root, *words).returncode == 0
    wait_for(lambda: len(tasks(cluster)) == 4, 240, "every element works")
    script = batch_scripts(cluster)[0]
    script.kill()
    wait_for(lambda: run.ledger("caption").sealed, 300, "the chain goes on by itself")
    assert run.ledger("tile").sealed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_supervisor_submits_a_lost_job_again_and_ends_when_all_is_sealed(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "watched", tmp_path / "model", SCENES)
    profile = write_profile(tmp_path)
    assert sarhpc(cluster, "simulate", run.root, "--profile", profile).returncode == 0
    command = [sys.executable, "-m", "sarhpc.cli", "supervise", str(run.root), "--every", "1"]
    with subprocess.Popen(
        command, env={**cluster.env, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    ) as supervisor:
        kill_batch_script(cluster, run)
        second = sarhpc(cluster, "supervise", run.root)
        printed, _ = supervisor.communicate(timeout=300)
    assert second.returncode == 1
    assert f"is supervised by process {supervisor.pid}" in second.stderr
    assert supervisor.returncode == 0
    assert run.ledger("simulate").sealed
    did, sealed = printed.splitlines()
    first, again = (record.jobs[0].job_id for record in read_submissions(run))
    assert f"simulate: job {first} ended FAILED" in did
    assert f"submitted again as job {again}" in did
    assert sealed.endswith("every submitted stage is sealed")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_resume_right_after_stop_submits_the_stages_behind_the_job_that_ends(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "dying", tmp_path / "model", SCENES)
    words = ("--until", "tile", "--profile", write_profile(tmp_path))
    assert sarhpc(cluster, "run", run.root, *words).returncode == 0
    wait_for(lambda: run.ledger("simulate").recorded_ids(), 240, "the first scene")
    for task in tasks(cluster):
        task.suspend()  # it has not seen the stop yet when `resume` looks at the queue
    assert sarhpc(cluster, "cancel", run.root).returncode == 0
    resumed = sarhpc(cluster, "resume", run.root)
    assert resumed.returncode == 0, resumed.stderr
    for task in tasks(cluster):
        task.resume()
    first, second = read_submissions(run)
    [dying], [behind] = first.of("simulate"), second.of("simulate")
    assert behind.dependency == f"afterany:{dying.job_id}"
    assert second.of("tile")[0].dependency == f"afterany:{behind.job_id}"
    again = sarhpc(cluster, "resume", run.root)
    assert "nothing to submit" in again.stdout
    wait_for(lambda: run.ledger("tile").sealed, 240, "the chain goes on")


def test_status_says_when_nothing_is_on_its_way(tmp_path: Path, cluster: MiniSlurm) -> None:
    run = tiny_run(tmp_path / "idle", tmp_path / "model", SCENES)
    profile = write_profile(tmp_path, NEVER)
    words = ("--until", "tile", "--profile", profile, "--json")
    reported = json.loads(sarhpc(cluster, "run", run.root, *words).stdout)
    submitted = read_submissions(run)[0].jobs
    assert [job["id"] for job in reported["jobs"]] == [job.job_id for job in submitted]
    simulate, tile = reported["jobs"]
    assert (simulate["stage"], tile["stage"]) == ("simulate", "tile")
    assert (simulate["depends_on"], tile["depends_on"]) == ([], [simulate["id"]])
    again = json.loads(sarhpc(cluster, "run", run.root, *words).stdout)
    assert [(job["id"], job["new"]) for job in again["jobs"]] == [
        (job.job_id, False) for job in submitted
    ]
    assert "nothing is on its way" not in sarhpc(cluster, "status", run.root).stdout
    cluster.run("scancel", *(job.job_id for job in read_submissions(run)[0].jobs))
    status = sarhpc(cluster, "status", run.root)
    assert (
        "! nothing is on its way: no job is queued or running for simulate, tile" in status.stdout
    )
    assert json.loads(sarhpc(cluster, "status", run.root, "--json").stdout)["on_its_way"] is False


def test_a_stop_during_the_submission_leaves_no_job_in_the_queue(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "stopped", tmp_path / "model", SCENES)
    profile = write_profile(tmp_path, NEVER)
    count = tmp_path / "count"
    lines = [f"echo x >> {count}", '"$REAL" "$@" || exit',
             f"if [ $(wc -l < {count}) = 3 ]; then touch {run.stop_file}; fi"]  # fmt: skip
    env = shim(tmp_path / "bin", "sbatch", lines)
    stopped = sarhpc(cluster, "run", run.root, "--profile", profile, env=env)
    assert stopped.returncode == 5
    assert "stopped by an operator during the submission; its 3 jobs so far are" in stopped.stderr
    assert jobs_of(cluster, "stopped", "PD,R,CG") == {}
    assert read_submissions(run) == []
    assert sarhpc(cluster, "resume", run.root, "--profile", profile).returncode == 0
    assert len(jobs_of(cluster, "stopped", "PD")) == 7


def test_two_commands_at_once_submit_each_stage_once(tmp_path: Path, cluster: MiniSlurm) -> None:
    run = tiny_run(tmp_path / "both", tmp_path / "model", SCENES)
    other = tiny_run(tmp_path / "other", tmp_path / "model", SCENES)
    profile = write_profile(tmp_path, NEVER)
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "sarhpc.cli", "run", str(root), "--profile", str(profile)],
            env={**cluster.env, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for root in (run.root, run.root, other.root)
    ]
    printed = [command.communicate(timeout=240)[0] for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0]
    assert sum("nothing to submit" in text for text in printed[:2]) == 1
    assert [len(jobs_of(cluster, name)) for name in ("both", "other")] == [7, 7]
    assert [len(read_submissions(one)) for one in (run, other)] == [1, 1]


def test_jobs_before_one_that_slurm_refuses_are_kept_and_the_others_are_named(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "limited", tmp_path / "model", SCENES)
    profile = write_profile(tmp_path, NEVER)
    count = tmp_path / "count"
    refusal = "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    lines = [f"echo x >> {count}",
             f"if [ $(wc -l < {count}) -gt 2 ]; then echo '{refusal}' >&2; exit 1; fi",
             'exec "$REAL" "$@"']  # fmt: skip
    env = shim(tmp_path / "bin", "sbatch", lines)
    refused = sarhpc(cluster, "run", run.root, "--profile", profile, env=env)
    assert refused.returncode == 1
    assert "2 of 7 jobs were submitted and stay (simulate" in refused.stderr
    [record] = read_submissions(run)
    assert record.refused == ("caption", "train", "export", "generate", "evaluate")
    passed = sarhpc(cluster, "supervise", run.root, "--once")
    assert passed.returncode == 0, passed.stderr
    assert [job.stage for job in read_submissions(run)[1].jobs] == list(record.refused)


def test_a_refused_resubmission_leaves_the_jobs_that_it_would_replace(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    run = tiny_run(tmp_path / "kept", tmp_path / "model", SCENES)
    words = ("--until", "tile", "--profile", write_profile(tmp_path, NEVER))
    assert sarhpc(cluster, "run", run.root, *words).returncode == 0
    [lost], [waiting] = (read_submissions(run)[0].of(name) for name in ("simulate", "tile"))
    cluster.run("scancel", lost.job_id)
    wait_for(lambda: list(jobs_of(cluster, "kept", "PD")) == [waiting.job_id], 60, "one is left")
    broken = shim(tmp_path / "bin", "sbatch", ["echo 'sbatch: error: try later' >&2", "exit 1"])
    refused = sarhpc(cluster, "resume", run.root, env=broken)
    assert refused.returncode == 1
    assert "try later" in refused.stderr
    assert list(jobs_of(cluster, "kept", "PD")) == [waiting.job_id]
    # A limit on jobs in the queue that only leaves room once the useless one is gone.
    lines = [f"if squeue -h -t PD -o %A | grep -qx {waiting.job_id}; then",
             "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; fi",
             'exec "$REAL" "$@"']  # fmt: skip
    resumed = sarhpc(cluster, "resume", run.root, env=shim(tmp_path / "bin", "sbatch", lines))
    assert resumed.returncode == 0, resumed.stderr
    again = read_submissions(run)[-1]
    assert sorted(jobs_of(cluster, "kept", "PD")) == sorted(job.job_id for job in again.jobs)
