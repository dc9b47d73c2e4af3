"""Nodes that die under jobs of a real Slurm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chain_runs import wait_for, write_profile
from line_runs import seal_export, shard_digests, tiny_run
from mini_slurm import MiniSlurm
from training_runs import (
    INTERVAL,
    PATIENCE_S,
    copy_of,
    metrics,
    profile_of,
    resumed_steps,
    submit,
    submit_to_export,
    wait_for_checkpoint,
    weights,
)

from hpc.job.pipeline import run_stage
from hpc.store.attempts import KILLED, read_attempts
from hpc.store.rundir import RunDir
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def batch_node(cluster: MiniSlurm, job: str) -> str:
    return cluster.job(job)["BatchHost"]


def test_a_training_whose_node_is_killed_ends_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path, cluster: MiniSlurm, ready_training: RunDir, calm_training: RunDir
) -> None:
    run = copy_of(ready_training, tmp_path / "run")
    profile = profile_of(tmp_path, 1)
    job, export = submit_to_export(cluster, run, profile)

    step = wait_for_checkpoint(run)
    cluster.crash_node(batch_node(cluster, job))
    reached = metrics(run)[-1]["step"]
    cluster.wait_state(job, timeout_s=PATIENCE_S)
    cluster.wait_state(export, timeout_s=PATIENCE_S)

    cluster.wait_records(job, ["NODE_FAIL", "COMPLETED"])
    ends = [row for row in read_attempts(run.stage("train")) if "to" in row]
    assert [row["exit"] for row in ends] == [KILLED, 0]
    [after_crash] = resumed_steps(run)
    assert after_crash >= step
    assert reached - after_crash <= INTERVAL
    assert run.ledger("export").sealed
    assert weights(run) == weights(calm_training)


def test_a_node_killed_under_an_array_costs_the_shards_under_way_and_no_other(
    tmp_path: Path, cluster: MiniSlurm, ready_training: RunDir
) -> None:
    model = Path(load_run_config(ready_training).train.base_model)
    words = ["generate.prompts=[a lake,a field]", "generate.images=40", "generate.steps=12"]
    here, there = (tiny_run(tmp_path / name, model, words) for name in ("here", "there"))
    for run in (here, there):
        seal_export(run, model)
    run_stage(here, stage_named(load_run_config(here), "generate"))

    array = submit(cluster, there, "generate", write_profile(tmp_path))
    assert array.elements == 2
    ledger = there.ledger("generate")
    wait_for(lambda: len(ledger.records()) > 2, PATIENCE_S, "the first shards")
    lost = [row for row in cluster.squeue("-t", "R") if row["id"].startswith(array.job_id)]
    node = lost[0]["nodes"]
    cluster.crash_node(node)
    time.sleep(0.5)
    kept = dict(ledger.records())
    wait_for(lambda: ledger.sealed, PATIENCE_S, "the corpus")

    assert 2 < len(kept) < len(ledger.records()), "it was killed midway"
    assert {shard: ledger.records()[shard] for shard in kept} == kept
    assert shard_digests(there, "generate") == shard_digests(here, "generate")
    elements = {row["id"] for row in lost if row["nodes"] == node}
    for element in elements:
        cluster.wait_records(element, ["NODE_FAIL", "COMPLETED"], timeout_s=180)
        rows = read_attempts(there.stage("generate"))
        mine = [row for row in rows if row.get("element") == int(element.rpartition("_")[2])]
        assert [row["exit"] for row in mine if "to" in row] == [KILLED, 0]
