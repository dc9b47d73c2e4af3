"""Hundreds of array elements on a real Slurm; `make bench-slurm` does the same with thousands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_slurm import light_run, look, submitted, tracked
from chain_runs import wait_for
from mini_slurm import MiniSlurm
from slowness import slowness

from hpc.cluster import slurm

SHARDS, ELEMENTS = 10_000, 300


@pytest.fixture(autouse=True)
def _user(cluster: MiniSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is a user of the cluster; it counts its commands."""
    for name, told in cluster.env.items():
        monkeypatch.setenv(name, told)
    slurm.COUNTS.clear()
    yield
    slurm.COUNTS.clear()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_shards_in_an_array_cost_a_handful_of_slurm_commands(
    tmp_path: Path, cluster: MiniSlurm
) -> None:
    light = light_run(tmp_path, SHARDS, ELEMENTS)
    job, _, commands = submitted(light)
    assert commands["sbatch"] == 1
    assert sum(commands.values()) <= 6, "asking does not grow with shards or elements"

    first = look(light).status.stages[0]
    assert first.queue.waiting + first.queue.working + first.disk.done / SHARDS * ELEMENTS > 0
    looks = tracked(light, every_s=3.0, within_s=400)
    [last] = looks[-1].status.stages
    assert (last.disk.done, last.disk.planned) == (SHARDS, SHARDS)
    for each in looks:
        assert set(each.commands) <= {"squeue", "sacct"}
        assert max(each.commands.values()) == 1
    # The least of them, as what else the machine does is not the program's.
    assert min(each.seconds - each.queue_s for each in looks) < slowness()

    assert not list((light.run.root / "ready").iterdir()), "every shard once"
    cluster.wait_state(job, "COMPLETED")
    wait_for(lambda: len(cluster.records(job)) == ELEMENTS, 60, "the accounting of all elements")
    assert {row["State"] for row in cluster.records(job)} == {"COMPLETED"}
    light.run.ledger("generate").seal(light.plan)
    sealed = look(light)
    assert (sealed.status.stages[0].state, sealed.commands) == ("COMPLETE", {})
