"""Tiles cut by one Dask cluster over two nodes of a real Slurm, which loses parts of itself."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from chain_runs import wait_for, write_profile
from line_runs import shard_digests, tiny_run
from mini_slurm import MiniSlurm
from training_runs import PATIENCE_S, copy_of, submit

from hpc.job.pipeline import run_stage
from hpc.store.attempts import KILLED, read_attempts
from hpc.store.rundir import RunDir
from sarhpc.shards.reader import read_shard
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# About 190 shards: some seconds of work, so that there is something to lose.
SCENES = ["simulate.size_px=320", "tile.shard_samples=2"]
TWO_NODES = "  tile: {nodes: 2, tasks_per_node: 1, cpus_per_task: 1, mem_gb: 1}\n"


@pytest.fixture(scope="module")
def simulated(ready_training: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with scenes and without tiles."""
    model = Path(load_run_config(ready_training).train.base_model)
    run = tiny_run(tmp_path_factory.mktemp("simulated") / "run", model, SCENES)
    run_stage(run, stage_named(load_run_config(run), "simulate"))
    return run


def dask_workers(cluster: MiniSlurm, node: str) -> list[psutil.Process]:
    """Processes of a node that a nanny has started."""
    found = []
    for process in cluster.job_processes(node):
        try:
            if any("spawn_main" in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_dask_worker_and_then_the_schedulers_node_killed_cost_no_shard_and_double_none(
    tmp_path: Path, cluster: MiniSlurm, simulated: RunDir
) -> None:
    calm = copy_of(simulated, tmp_path / "calm")
    run_stage(calm, stage_named(load_run_config(calm), "tile"))
    run = copy_of(simulated, tmp_path / "run")
    profile = write_profile(tmp_path)
    profile.write_text(profile.read_text() + TWO_NODES)
    job = submit(cluster, run, "tile", profile).job_id
    ledger = run.ledger("tile")
    wait_for(ledger.recorded_ids, PATIENCE_S, "the first shard")
    scheduler = cluster.job(job)["BatchHost"]
    [lender] = {row["nodes"] for row in cluster.squeue("-j", job)}
    nodes = cluster.run("scontrol", "show", "hostnames", lender).stdout.split()
    [other] = set(nodes) - {scheduler}

    wait_for(lambda: dask_workers(cluster, other), 60, "the other node's worker")
    dask_workers(cluster, other)[0].kill()
    done = len(ledger.recorded_ids())
    wait_for(lambda: len(ledger.recorded_ids()) > done + 10, PATIENCE_S, "work goes on")
    cluster.crash_node(scheduler)
    kept = dict(ledger.records())
    wait_for(lambda: ledger.sealed, PATIENCE_S, "the tiles")
    cluster.wait_state(job, "COMPLETED")

    cluster.wait_records(job, ["NODE_FAIL", "COMPLETED"], timeout_s=180)
    ends = [row["exit"] for row in read_attempts(run.stage("tile")) if "to" in row]
    assert ends == [KILLED, 0]
    records = ledger.records()
    assert 10 < len(kept) < len(records), "it was killed midway"
    assert {shard: records[shard] for shard in kept} == kept, "what was done is not done again"
    assert shard_digests(run, "tile") == shard_digests(calm, "tile")
    keys = [sample.key for row in records.values() for sample in read_shard(Path(row.path))]
    assert len(keys) == len(set(keys)) == sum(row.samples for row in records.values())
    if cluster.spec.isolate == "uts":
        assert len({record.host for record in records.values()}) > 1, "both nodes cut tiles"
    assert list((run.root / "dask").iterdir()) == []
