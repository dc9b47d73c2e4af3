"""Workers of one array element: one per GPU, one per task; the bytes are those of a single one."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from line_runs import (
    kill_group,
    make_tiny_model,
    seal_export,
    shard_digests,
    stage_log,
    start_stage,
    tiny_run,
)

from hpc.job.pipeline import run_stage
from hpc.store.attempts import read_attempts
from hpc.store.rundir import RunDir
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = pytest.mark.slow

WORDS = ["generate.images=12", "generate.prompts=[a lake, a town, a road]"]


def element(job: int, task: int = 0, tasks: int = 1, gpus: str = "", **more: str) -> dict[str, str]:
    """What Slurm tells a task of element 0 of a job array of one element."""
    return {
        "SLURM_JOB_ID": str(job), "SLURM_ARRAY_JOB_ID": str(job), "SLURM_ARRAY_TASK_ID": "0",
        "SLURM_ARRAY_TASK_COUNT": "1", "SLURMD_NODENAME": "localhost", "SLURM_CPUS_PER_TASK": "1",
        "SLURM_STEP_ID": "0", "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task),
        "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_TASKS_ON_NODE": str(tasks),
        "CUDA_VISIBLE_DEVICES": gpus, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def prepared(root: Path, model: Path) -> RunDir:
    run = tiny_run(root, model, WORDS)
    seal_export(run, model)
    return run


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Digests of the shards made by one worker in turn, as by an element with one GPU."""
    run = prepared(tmp_path_factory.mktemp("calm") / "run", model)
    assert start_stage(run, "generate", element(500)).wait(300) == 0, stage_log(run, "generate")
    return shard_digests(run, "generate")


def test_a_task_with_two_gpus_makes_the_same_bytes(
    tmp_path: Path, model: Path, undisturbed: Mapping[str, str]
) -> None:
    run = prepared(tmp_path / "run", model)
    started = start_stage(run, "generate", element(501, gpus="0,1"))
    assert started.wait(300) == 0, stage_log(run, "generate")
    assert shard_digests(run, "generate") == undisturbed


def test_two_tasks_of_an_element_share_its_shards_with_the_same_bytes(
    tmp_path: Path, model: Path, undisturbed: Mapping[str, str]
) -> None:
    run = prepared(tmp_path / "run", model)
    tasks = [start_stage(run, "generate", element(502, task, 2)) for task in (0, 1)]
    assert [task.wait(300) for task in tasks] == [0, 0], stage_log(run, "generate")
    assert "LeaseLost" not in stage_log(run, "generate")
    assert shard_digests(run, "generate") == undisturbed
    assert len([row for row in read_attempts(run.stage("generate")) if "from" in row]) == 1


def test_a_task_whose_element_has_nothing_left_ends(
    tmp_path: Path, model: Path, undisturbed: Mapping[str, str]
) -> None:
    run = prepared(tmp_path / "run", model)
    run_stage(run, stage_named(load_run_config(run), "generate"))
    for task in (1, 0):
        assert start_stage(run, "generate", element(503, task, 2)).wait(60) == 0
    assert shard_digests(run, "generate") == undisturbed


def test_an_element_of_two_workers_that_is_killed_at_random_ends_with_the_same_bytes(
    tmp_path: Path, model: Path, undisturbed: Mapping[str, str]
) -> None:
    run = prepared(tmp_path / "run", model)
    rng = random.Random(3)
    for kill in range(2):
        restart = {"SLURM_RESTART_COUNT": str(kill)}
        started = start_stage(run, "generate", element(504, gpus="0,1", **restart))
        until = time.monotonic() + 60
        recorded = len(run.ledger("generate").recorded_ids())
        while len(run.ledger("generate").recorded_ids()) == recorded and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        kill_group(started)
    last = element(504, gpus="0,1", SLURM_RESTART_COUNT="2")
    assert start_stage(run, "generate", last).wait(300) == 0, stage_log(run, "generate")
    assert shard_digests(run, "generate") == undisturbed
