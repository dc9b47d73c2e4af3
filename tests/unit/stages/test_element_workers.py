"""Workers of an array element: one for each GPU of each of its tasks, under one lease."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forked import start
from shard_makers import element_task, named_workers, odd

from hpc.cluster.allocation import Allocation
from hpc.job.elements import follow_element, run_element
from hpc.store.rundir import RunDir, create_run
from sarhpc.stages.work.executors import workers_here

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


@pytest.fixture(autouse=True)
def _element(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of an array element of one task."""
    for name, value in {
        "SLURM_JOB_ID": "601", "SLURM_ARRAY_JOB_ID": "600", "SLURM_ARRAY_TASK_ID": "1",
        "SLURMD_NODENAME": "localhost", "SLURM_CPUS_PER_TASK": "4",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def makers(run: RunDir) -> set[tuple[str, str]]:
    """GPU and process of each worker that made a shard."""
    paths = (run.root / "data").glob("*.bin")
    return {(gpu, pid) for gpu, pid in (path.read_text().split() for path in paths)}


def test_an_element_has_a_worker_for_each_gpu_and_else_one() -> None:
    two = Allocation(job_id="7", cpus=16, gpus=("0", "1"))
    assert workers_here(two, 3, element=True) == 2
    assert workers_here(Allocation(job_id="7", cpus=16), 3, element=True) == 1
    assert workers_here(two, 3, per_core=True, element=True) == 1


def test_every_gpu_of_an_element_makes_shards(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert "made 6 of its 6 shards" in run_element(run, named_workers(12), 1, odd)
    assert {gpu for gpu, _ in makers(run)} == {"2", "3"}
    assert len(run.ledger("generate").recorded_ids()) == 6
    assert [path.name for path in run.stage("generate").glob(".lease*")] == []


def test_an_element_with_one_gpu_makes_its_shards_in_its_own_process(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    run_element(run, named_workers(6), 1, odd)
    assert makers(run) == {("2", str(os.getpid()))}
    assert not (run.root / "dask").exists()


def test_a_second_task_works_for_the_first_and_takes_no_lease(run: RunDir) -> None:
    tasks = []
    for rank in (0, 1):
        step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank)}
        log = run.root / f"task{rank}.log"
        tasks.append(start(element_task, str(run.root), rank, 40, log=log, env=step))
    assert [task.wait(120) for task in tasks] == [0, 0]
    ends = [(run.root / f"task{rank}.log").read_text() for rank in (0, 1)]
    assert "element 1 made 20 of its 20 shards now" in ends[0]
    assert "rank 1 of element 1 done" in ends[1]
    assert len(makers(run)) == 2
    assert "has nothing to do" in follow_element(run, named_workers(40), 1, odd, rank=1)
