"""Sharded stages as jobs: a signal ends them in time, and they ask to come back."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from forked import Forked, start
from line_runs import kill_group, make_tiny_model, seal_export, shard_digests, tiny_run

from hpc.errors import CrashLoopError
from hpc.job.pipeline import run_stage
from hpc.store.attempts import CRASH_LIMIT, read_attempts
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission
from sarhpc.launch.job import work
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def ready(root: Path, model: Path) -> RunDir:
    """A run of 24 images in 12 shards, each slow enough to be interrupted."""
    words = ["generate.prompts=[a lake,a town]", "generate.steps=40", "cluster.workers=1"]
    run = tiny_run(root, model, words)
    seal_export(run, model)
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunDir:
    run = ready(tmp_path_factory.mktemp("calm") / "run", model)
    run_stage(run, stage_named(load_run_config(run), "generate"))
    return run


def submitted(run: RunDir, elements: int | None, time_min: int | None = None) -> None:
    """A submission of generation as job 12."""
    files = ("submit/0.sbatch", "generate/logs")
    job = SubmittedJob("generate", "12", elements, None, *files, 1, 0, time_min=time_min)
    publish_submission(
        run,
        SubmissionRecord(0, now(), "slurm", "mini", "f00d", (job,), "scontrol", grace_s=20.0),
    )


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of job 12 on a cluster whose commands note what they are asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("scontrol", "squeue", "sbatch"):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/asked.txt\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}


def start_task(run: RunDir, environment: Mapping[str, str]) -> Forked:
    """The job's only task."""
    log = run.root / "job.log"
    return start(work, str(run.root), "generate", submission=0, log=log, env=environment)


def wait_for_records(run: RunDir, count: int, process: Forked) -> None:
    until = time.monotonic() + 200
    while len(run.ledger("generate").recorded_ids()) < count:
        assert process.poll() is None, (run.root / "job.log").read_text()[-3000:]
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("number", "elements", "asks"),
    [(signal.SIGUSR2, 1, True)],
    ids=["usr2 in an array"],
)
def test_generation_that_is_signalled_keeps_its_shards_and_goes_on_later(
    tmp_path: Path,
    model: Path,
    undisturbed: RunDir,
    slurm: dict[str, str],
    number: signal.Signals,
    elements: int | None,
    asks: bool,
) -> None:
    run = ready(tmp_path / "run", model)
    submitted(run, elements)
    if elements is not None:
        slurm |= {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0"}
    process = start_task(run, slurm)
    try:
        wait_for_records(run, 1, process)
        # As Slurm does, to every process of the step.
        os.killpg(process.pid, number)
        assert process.wait(timeout=120) == 0, (run.root / "job.log").read_text()[-3000:]
    finally:
        kill_group(process)
    done = run.ledger("generate").recorded_ids()
    assert 1 <= len(done) < 12
    assert not run.ledger("generate").sealed
    [end] = [row for row in read_attempts(run.stage("generate")) if "to" in row]
    assert (end["exit"], end["to"]) == (0, len(done))
    assert end["stop"] == ("PREEMPT" if asks else "TERMINATE")
    asked = (tmp_path / "asked.txt").read_text() if (tmp_path / "asked.txt").exists() else ""
    assert ("scontrol requeue 12" in asked) == asks
    assert list((run.root / "dask").glob("*")) == []

    again = start_task(run, {**slurm, "SLURM_RESTART_COUNT": "1"})
    assert again.wait(timeout=400) == 0, (run.root / "job.log").read_text()[-3000:]
    assert shard_digests(run, "generate") == shard_digests(undisturbed, "generate")
    starts = [row for row in read_attempts(run.stage("generate")) if "from" in row]
    assert [row["from"] for row in starts] == [0, len(done)]


@pytest.mark.timeout(600)
def test_an_element_whose_limit_is_too_short_for_one_shard_gives_up_after_three_times(
    tmp_path: Path, model: Path, slurm: dict[str, str]
) -> None:
    run = ready(tmp_path / "run", model)
    submitted(run, 1, time_min=0)
    slurm |= {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0"}
    exits = []
    for restart in range(CRASH_LIMIT + 1):
        # The limit that was asked for, or from Slurm 23.02 on the end that Slurm tells.
        told = {"SLURM_JOB_END_TIME": str(int(time.time()))} if restart else {}
        environment = {**slurm, **told, "SLURM_RESTART_COUNT": str(restart)}
        exits.append(start_task(run, environment).wait(120))
    assert exits == [0] * CRASH_LIMIT + [CrashLoopError.exit_code]
    ends = [row for row in read_attempts(run.stage("generate")) if "to" in row]
    assert [(row["stop"], row["to"]) for row in ends] == [("DEADLINE", 0)] * CRASH_LIMIT
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert asked.count("scontrol requeue 12") == CRASH_LIMIT
    assert not [line for line in asked if line.startswith("squeue")], "no element asks for its end"
