"""Tasks of one job join rank 0's cluster, and end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hpc.cluster.dask import dask_cluster, join_cluster, node_address
from hpc.cluster.dask_shards import run_shards
from hpc.errors import TransientError
from hpc.store.plan import ShardTask

pytestmark = [pytest.mark.slow, pytest.mark.starts_workers]

LEND = """
import sys
from pathlib import Path
from hpc.cluster.dask import join_cluster
if __name__ == "__main__":
    lent = join_cluster(Path(sys.argv[1]), 1, is_over=lambda: False, timeout_s=60)
    sys.exit(0 if lent else 9)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a job's cluster, in an environment as Slurm makes it."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURMD_NODENAME", "localhost")
    return tmp_path / "dask"


@pytest.fixture
def lender(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    home.mkdir()
    process = subprocess.Popen([sys.executable, "-c", LEND, str(home)], env=dict(os.environ))
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


def whose(task: ShardTask) -> int:
    """Process of the worker's nanny."""
    time.sleep(0.3)
    return os.getppid()


def kill_first_time(task: ShardTask) -> str:
    mark = Path(task.inputs["marks"]) / task.id
    if task.inputs["dies"] and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    return task.id


def test_lent_workers_share_the_shards_and_leave_with_the_scheduler(
    home: Path, lender: subprocess.Popen[bytes]
) -> None:
    with dask_cluster(home, 1, shared=True) as client:
        client.wait_for_workers(2, timeout=60)
        tasks = [ShardTask(f"{n:06d}") for n in range(6)]
        makers = {made for _, made in run_shards(client, whose, tasks, window=2, retries=0)}
        assert len(makers) == 2
        [file] = home.glob("scheduler-*.json")
        assert file.name == "scheduler-77-1.json"
        assert file.stat().st_mode & 0o777 == 0o600
    assert lender.wait(timeout=30) == 0
    assert list(home.iterdir()) == []


def test_a_lent_worker_that_dies_costs_its_shard_one_more_run(
    home: Path, lender: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    tasks = [ShardTask(f"{n:06d}", {"marks": str(tmp_path), "dies": n in (0, 1)}) for n in range(6)]
    with dask_cluster(home, 1, shared=True) as client:
        client.wait_for_workers(2, timeout=60)
        done = [made for _, made in run_shards(client, kill_first_time, tasks, window=2, retries=2)]
    assert sorted(map(str, done)) == [task.id for task in tasks]


def test_a_lent_worker_that_dies_while_it_starts_is_started_again(
    home: Path, lender: subprocess.Popen[bytes]
) -> None:
    with dask_cluster(home, 1, shared=True) as client:
        until = time.monotonic() + 60
        while not (starting := started_by(lender)):
            assert time.monotonic() < until
            time.sleep(0.01)
        starting[0].kill()
        client.wait_for_workers(2, timeout=60)
    assert lender.wait(timeout=30) == 0


def started_by(lender: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Worker processes of a lender."""
    children = psutil.Process(lender.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_shards_are_given_up_when_patience_ends(home: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    tasks = [ShardTask("000000")]
    with dask_cluster(home, 1) as client:
        made = list(
            run_shards(
                client,
                sleep_a_minute,
                tasks,
                window=1,
                retries=0,
                should_abort=lambda: time.monotonic() - began > 3,
            )
        )
    assert made == []
    assert time.monotonic() - began < 30


def sleep_a_minute(task: ShardTask) -> None:
    time.sleep(60)


def test_a_scheduler_file_of_an_earlier_start_is_not_taken(home: Path) -> None:
    home.mkdir()
    (home / "scheduler-77-0.json").write_text("{}")
    with pytest.raises(TransientError, match="scheduler-77-1"):
        join_cluster(home, 1, is_over=lambda: False, timeout_s=0.1)
    assert not join_cluster(home, 1, is_over=lambda: True)
    with dask_cluster(home, 1):
        assert not (home / "scheduler-77-0.json").exists()


def test_an_unknown_node_name_says_what_to_do() -> None:
    with pytest.raises(TransientError, match="exclude the node"):
        node_address("no-such-node.invalid")
