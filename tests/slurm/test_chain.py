"""Submission of the whole pipeline to a real Slurm."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from chain_runs import NEVER, jobs_of, sarhpc, shim, wait_for, write_profile
from line_runs import make_tiny_model, seal_export, shard_digests, tiny_run
from mini_slurm import MiniSlurm
from model_folders import model_layout

from hpc.job.pipeline import run_stage
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from hpc.store.submissions import read_submissions
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPTS = "generate.prompts=[a lake,a field]"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunDir:
    """A run with captions, for those tests that are about what comes after."""
    run = tiny_run(tmp_path_factory.mktemp("captioned") / "run", model)
    for stage in ("simulate", "tile", "caption"):
        run_stage(run, stage_named(load_run_config(run), stage))
    return run


def take_over(run: RunDir, captioned: RunDir) -> None:
    """Let `run` begin where `captioned` stands; its records name the other's shards."""
    for stage in ("simulate", "tile", "caption"):
        run.stage(stage).mkdir()
        shutil.copy(captioned.plan_file(stage), run.plan_file(stage))
        for record in captioned.ledger(stage).records().values():
            run.ledger(stage).publish(record)
        run.ledger(stage).seal(read_plan(run.plan_file(stage)))


def sealed(run: RunDir, *stages: str) -> bool:
    return all(run.ledger(stage).sealed for stage in stages)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_line_runs_as_jobs_and_makes_the_bytes_of_the_local_executor(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    here = tiny_run(tmp_path / "here" / "run", model, [PROMPTS])
    there = tiny_run(tmp_path / "there" / "run", model, [PROMPTS])
    profile = write_profile(tmp_path, "  tile: {nodes: 2, cpus_per_task: 1, mem_gb: 1}\n")
    done = sarhpc(cluster, "run", there.root, "--profile", profile)
    assert done.returncode == 0, done.stderr
    for stage in ("simulate", "tile", "caption"):
        run_stage(here, stage_named(load_run_config(here), stage))
    wait_for(lambda: sealed(there, "evaluate"), 900, "the chain ends")
    # That training makes the same weights here and there is shown where it is preempted.
    seal_export(here, there.root / "export" / "model")
    run_stage(here, stage_named(load_run_config(here), "generate"))
    [record] = read_submissions(there)
    assert [job.stage for job in record.jobs][:3] == ["simulate", "tile", "caption"]
    assert [record.of(stage)[0].tasks for stage in ("tile", "train")] == [2, 2]
    assert record.elements("generate") == 2
    ids = {job.stage: job.job_id for job in record.jobs}
    assert record.of("evaluate")[0].dependency == f"afterany:{ids['caption']}:{ids['generate']}"
    for stage in ("tile", "caption", "generate"):
        assert shard_digests(there, stage) == shard_digests(here, stage)
        assert len(shard_digests(there, stage)) > 5
    for job in record.jobs:
        name = job.logs.replace("%j", job.job_id).replace("%A", job.job_id)
        assert (there.root / name.replace("%a", "0").replace("%t", "0").replace("%r", "0")).exists()
    # A stage is sealed a moment before its script ends and cleans up.
    wait_for(lambda: not list(there.root.glob("*/logs/*.pkl")), 60, "scripts clean up")
    again = sarhpc(cluster, "resume", there.root)
    assert again.stdout == "nothing to do: every stage is sealed\n"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jobs_import_the_code_as_it_was_when_they_were_submitted(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    checkout = tmp_path / "checkout"
    for name in ("hpc", "sarhpc", "configs", "slurm", "pyproject.toml"):
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "embedded")
            shutil.copytree(source, checkout / name, ignore=ignored)
        else:
            shutil.copy(source, checkout / name)
    run = tiny_run(tmp_path / "run", model)
    profile = write_profile(tmp_path, "options: {begin: now+10}\n")
    mine = {"PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}
    done = sarhpc(cluster, "simulate", run.root, "--profile", profile, env=mine)
    assert done.returncode == 0, done.stderr
    (checkout / "sarhpc" / "launch" / "job.py").write_text("raise SystemExit('the new code')\n")
    assert "new code" in sarhpc(cluster, "resume", run.root, "--dry-run", env=mine).stderr
    wait_for(lambda: sealed(run, "simulate"), 300, "the old code finishes")
    [record] = read_submissions(run)
    code = run.root / str(record.code)
    assert (code / "sarhpc" / "launch" / "job.py").stat().st_mode & 0o222 == 0


def test_what_is_printed_is_what_is_submitted(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(tmp_path / "run", model)
    profile = write_profile(tmp_path, NEVER)
    printed = sarhpc(cluster, "run", run.root, "--profile", profile, "--print-sbatch")
    assert printed.returncode == 0, printed.stderr
    assert read_submissions(run) == []
    assert jobs_of(cluster, "run", "PENDING") == {}
    assert sarhpc(cluster, "run", run.root, "--profile", profile).returncode == 0
    [record] = read_submissions(run)
    kept = [(run.root / job.script).read_text() for job in record.jobs]
    assert printed.stdout == "".join(kept)
    for job, script in zip(record.jobs, kept, strict=True):
        held = cluster.run("scontrol", "write", "batch_script", job.job_id, "-").stdout
        assert held.rstrip("\n") == script.rstrip("\n")


def test_shell_metacharacters_arrive_as_text(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    nasty = 'it\'s a $(touch pwned) `x`; "run" #1 & ünïx'
    run = tiny_run(tmp_path / nasty, model)
    profile = write_profile(tmp_path, "modules: []\n")
    text = profile.read_text().replace('OMP_NUM_THREADS: "1"', """NOTE: "'; touch pwned; '" """)
    profile.write_text(text)
    done = sarhpc(cluster, "simulate", run.root, "--profile", profile)
    assert done.returncode == 0, done.stderr
    [record] = read_submissions(run)
    [job] = record.jobs
    output = cluster.run("squeue", "-h", "-t", "all", "-j", job.job_id, "-o", "%j").stdout
    assert output == f"{nasty}-simulate\n"
    wait_for(lambda: sealed(run, "simulate"), 300, "the job of the oddly named run")
    assert not list(tmp_path.rglob("pwned"))
    assert not (Path.cwd() / "pwned").exists()


@pytest.mark.parametrize("name", ["run%j", "run:2"])
def test_a_run_that_was_moved_to_where_jobs_cannot_work_is_refused(
    name: str, tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    """Slurm would change `%j`, and a job would import other code than `run:2/code/...`."""
    moved = tiny_run(tmp_path / "run", model).root.rename(tmp_path / name)
    done = sarhpc(cluster, "run", moved, "--profile", write_profile(tmp_path))
    assert done.returncode == 2
    assert "another run name" in done.stderr
    assert jobs_of(cluster, name) == {}
    assert sorted(path.name for path in moved.iterdir()) == [
        "config.yaml",
        "overrides.txt",
        "run.json",
    ]


def test_the_same_command_again_submits_nothing(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(tmp_path / "twice", model)
    profile = write_profile(tmp_path, NEVER)
    assert sarhpc(cluster, "run", run.root, "--profile", profile).returncode == 0
    before = jobs_of(cluster, "twice")
    again = sarhpc(cluster, "run", run.root, "--profile", profile)
    assert "nothing to submit" in again.stdout
    assert sarhpc(cluster, "resume", run.root).returncode == 0
    assert jobs_of(cluster, "twice") == before
    assert len(read_submissions(run)) == 1


def test_a_submission_that_died_half_way_is_finished_not_repeated(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(tmp_path / "half", model)
    profile = write_profile(tmp_path, NEVER)
    count = tmp_path / "count"
    died_there = f"if [ $(wc -l < {count}) = 3 ]; then kill -9 $PPID; fi"
    lines = [f"echo x >> {count}", '"$REAL" "$@" || exit', died_there]
    env = shim(tmp_path / "bin", "sbatch", lines)
    died = sarhpc(cluster, "run", run.root, "--profile", profile, env=env)
    assert died.returncode == -9
    assert read_submissions(run) == []
    first = jobs_of(cluster, "half")
    assert len(first) == 3
    status = json.loads(sarhpc(cluster, "status", run.root, "--json").stdout)
    assert status["on_its_way"] is True
    assert [stage["state"] for stage in status["stages"]][:4] == [*["PENDING"] * 3, "WAITING"]
    assert "submitted by a command that died before it recorded them" in status["notes"][0]
    passed = sarhpc(cluster, "supervise", run.root, "--once", "--profile", profile)
    assert passed.returncode == 0, passed.stderr
    simulated = next(job for job, comment in first.items() if ":simulate:" in comment)
    assert f"simulate: job {simulated} of a command that died is recorded now" in passed.stdout
    assert "submitted again" not in passed.stdout
    [record] = read_submissions(run)
    assert set(record.adopted) == set(first)
    jobs = jobs_of(cluster, "half")
    assert sorted(job.job_id for job in record.jobs) == sorted(jobs)
    assert len(jobs) == 7
    assert set(first) < set(jobs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_controller_that_is_away_loses_no_submission_and_doubles_none(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(tmp_path / "away", model)
    profile = write_profile(tmp_path, NEVER)
    # Frozen, it takes the request and answers nobody: whether it was heard shows only later.
    cluster.freeze_controller()
    threading.Timer(25, cluster.thaw_controller).start()
    done = sarhpc(cluster, "run", run.root, "--profile", profile)
    assert done.returncode == 0, done.stderr
    jobs = jobs_of(cluster, "away")
    assert len(jobs) == 7
    assert len(set(jobs.values())) == 7
    [record] = read_submissions(run)
    assert sorted(job.job_id for job in record.jobs) == sorted(jobs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_resume_repairs_a_broken_tail(
    tmp_path: Path, cluster: MiniSlurm, model: Path, captioned: RunDir
) -> None:
    absent = model_layout(tmp_path / "model-to-come")
    run = tiny_run(tmp_path / "tail", model, [f"train.base_model={absent}", PROMPTS])
    take_over(run, captioned)
    profile = write_profile(tmp_path)
    profile.write_text(profile.read_text().replace("requeue: scontrol", "requeue: none"))
    assert sarhpc(cluster, "run", run.root, "--profile", profile).returncode == 0
    wait_for(lambda: not jobs_of(cluster, "tail", "PD,R,CG"), 600, "every job left the queue")
    [record] = read_submissions(run)
    assert [job.stage for job in record.jobs] == ["train", "export", "generate", "evaluate"]
    accounted = cluster.run(
        "sacct", "-n", "-P", "-X", "-j", record.of("export")[0].job_id, "-o", "State,ExitCode"
    ).stdout
    assert accounted == "FAILED|5:0\n"
    shutil.rmtree(absent)
    absent.symlink_to(model)
    resumed = sarhpc(cluster, "resume", run.root)
    assert resumed.returncode == 0, resumed.stderr
    second = read_submissions(run)[1]
    assert [job.stage for job in second.jobs] == [job.stage for job in record.jobs]
    again = sarhpc(cluster, "resume", run.root)
    assert "in the queue" in again.stdout
    wait_for(lambda: sealed(run, "evaluate"), 900, "the repaired tail ends")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cancel_saves_stops_and_is_not_requeued(
    tmp_path: Path, cluster: MiniSlurm, model: Path, captioned: RunDir
) -> None:
    words = [PROMPTS, "train.max_steps=100000", "train.checkpoint_every_steps=100000"]
    run = tiny_run(tmp_path / "stopped", model, words)
    take_over(run, captioned)
    profile = write_profile(tmp_path)
    assert sarhpc(cluster, "run", run.root, "--profile", profile).returncode == 0
    metrics = run.stage("train") / "metrics.jsonl"
    wait_for(metrics.exists, 600, "training steps")
    cancelled = sarhpc(cluster, "cancel", run.root)
    assert cancelled.returncode == 0, cancelled.stderr
    wait_for(lambda: not jobs_of(cluster, "stopped", "PD,R,CG"), 300, "nothing in the queue")
    assert list((run.stage("train") / "checkpoints").glob("step_*[0-9]"))
    [train] = read_submissions(run)[0].of("train")
    asked = ("sacct", "-n", "-P", "-X", "-D", "-j", train.job_id, "-o", "State,ExitCode")
    # Accounting learns of the end a moment after the queue.
    wait_for(lambda: "RUNNING" not in cluster.run(*asked).stdout, 60, "the end in accounting")
    assert cluster.run(*asked).stdout.splitlines() == ["COMPLETED|0:0"]
    refused = sarhpc(cluster, "run", run.root, "--profile", profile)
    assert refused.returncode == 2
    assert "resume" in refused.stderr


def test_cost_is_told_before_anything_is_submitted(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(tmp_path / "dry", model, ["train.global_batch=16"])
    output = sarhpc(cluster, "run", run.root, "--profile", "a100", "--dry-run")
    assert output.returncode == 0, output.stderr
    # 2 nodes x 4 GPUs x 24 h, the profile's training.
    assert "at most 192.0 GPU-hours" in output.stdout
    assert "inodes" in output.stdout
    assert jobs_of(cluster, "dry") == {}


def test_an_array_is_split_by_what_slurm_takes(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(tmp_path / "arrays", model, [PROMPTS, "generate.images=48"])
    profile = write_profile(tmp_path, NEVER, "max_array: 10\n")
    profile.write_text(profile.read_text().replace("{elements: 2,", "{elements: 100,"))
    assert sarhpc(cluster, "run", run.root, "--profile", profile).returncode == 0
    [record] = read_submissions(run)
    arrays = [(job.first, job.elements) for job in record.of("generate")]
    # 48 images make 24 shards: no element without one.
    assert arrays == [(0, 10), (10, 10), (20, 4)]
    output = cluster.run("squeue", "-h", "-r", "-j", record.of("generate")[2].job_id).stdout
    assert len(output.splitlines()) == 4


def test_a_site_without_requeue_gets_waiting_successors(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(tmp_path / "chained", model)
    profile = write_profile(tmp_path, NEVER, "successors: 2\n")
    profile.write_text(profile.read_text().replace("requeue: scontrol", "requeue: chain"))
    assert sarhpc(cluster, "simulate", run.root, "--profile", profile).returncode == 0
    [record] = read_submissions(run)
    first, second, third = record.jobs
    assert (first.dependency, second.dependency) == (None, f"afterany:{first.job_id}")
    assert third.dependency == f"afterany:{second.job_id}"
    assert record.requeue == "chain"
    shown = cluster.run("scontrol", "show", "job", third.job_id).stdout
    assert "Requeue=0" in shown
    assert f"afterany:{second.job_id}" in shown
    text = json.loads((run.root / "submissions" / "000.json").read_text())
    assert text["schema"] == "sarhpc.submission/1"


def test_the_kept_script_can_be_submitted_by_hand(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(tmp_path / "hand", model)
    profile = write_profile(tmp_path)
    assert sarhpc(cluster, "simulate", run.root, "--profile", profile).returncode == 0
    [record] = read_submissions(run)
    wait_for(lambda: sealed(run, "simulate"), 300, "the job ends")
    script = run.root / record.jobs[0].script
    ended = subprocess.run(
        ["sbatch", "--wait", str(script)],
        env=cluster.env, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert sys.executable in script.read_text()


def test_jobs_stay_away_from_nodes_that_are_marked_bad(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    state = {"SARHPC_STATE": str(tmp_path / "state")}
    marked = sarhpc(cluster, "nodes", "--mark", "n3", "--reason", "ECC errors", env=state)
    assert marked.returncode == 0, marked.stderr
    run = tiny_run(tmp_path / "wary", model)
    profile = write_profile(tmp_path, NEVER)
    assert sarhpc(cluster, "run", run.root, "--profile", profile, env=state).returncode == 0
    [record] = read_submissions(run)
    for job in record.jobs:
        shown = cluster.run("scontrol", "show", "job", job.job_id).stdout
        assert "ExcNodeList=n3\n" in shown
