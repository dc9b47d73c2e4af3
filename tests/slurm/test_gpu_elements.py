"""Elements of an array with several GPUs on a real Slurm: a worker for each, the bytes of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_runs import PROFILE, wait_for
from line_runs import make_tiny_model, seal_export, shard_digests, tiny_run
from mini_slurm import MiniSlurm
from training_runs import PATIENCE_S, submit

from hpc.job.pipeline import run_stage
from hpc.store.attempts import read_attempts
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
WORDS = ["generate.prompts=[a lake,a field]", "generate.images=24", "generate.steps=2"]


@pytest.mark.parametrize("tasks", [2, pytest.param(1, marks=pytest.mark.long)])
def test_every_gpu_of_an_element_works_and_the_shards_are_those_of_one_process(
    tmp_path: Path, cluster: MiniSlurm, tasks: int
) -> None:
    model = make_tiny_model(tmp_path / "model")
    here, there = (tiny_run(tmp_path / name, model, WORDS) for name in ("here", "there"))
    for run in (here, there):
        seal_export(run, model)
    run_stage(here, stage_named(load_run_config(here), "generate"))

    profile = tmp_path / "mini.yaml"
    asked = f"elements: 2, tasks_per_node: {tasks}, gpus_per_node: 2, cpus_per_task: 1"
    profile.write_text(PROFILE.replace("generate: {elements: 2, mem_gb: 1", f"generate: {{{asked}"))
    array = submit(cluster, there, "generate", profile)
    assert (array.elements, array.gpus) == (2, 2)
    wait_for(lambda: there.ledger("generate").sealed, PATIENCE_S, "the corpus")
    for element in range(2):
        cluster.wait_records(f"{array.job_id}_{element}", ["COMPLETED"], timeout_s=180)

    assert shard_digests(there, "generate") == shard_digests(here, "generate")
    starts = [row for row in read_attempts(there.stage("generate")) if "from" in row]
    assert sorted(row["element"] for row in starts) == [0, 1], (
        "one start of each, by its first task"
    )
    assert not list(there.stage("generate").glob(".lease-[0-9]*"))
