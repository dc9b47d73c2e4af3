"""A forked process is what tests take it for: alone, killable, and without threads of others."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from forked import start
from line_runs import kill_group

from hpc.cluster.dask import dask_cluster

pytestmark = pytest.mark.slow


def look_around(out: Path) -> int:
    threads = psutil.Process(os.getppid()).num_threads()
    out.write_text(f"{threads} {os.getsid(0) == os.getpid()} {os.environ['SAID']}")
    print("this is logged")
    return 7


def test_it_has_a_session_and_an_environment_of_its_own_and_its_server_one_thread(
    tmp_path: Path,
) -> None:
    process = start(look_around, tmp_path / "out", log=tmp_path / "log", env={"SAID": "so"})
    assert process.wait(120) == process.poll() == 7
    assert (tmp_path / "out").read_text() == "1 True so"
    assert (tmp_path / "log").read_text() == "this is logged\n"
    assert "SAID" not in os.environ


def keep_workers(home: Path) -> int:
    with dask_cluster(home, 2) as client:
        pids = client.run(os.getpid).values()
        (home / "workers").write_text(" ".join(map(str, pids)))
        time.sleep(100)
    return 0


def test_its_workers_are_in_its_session_and_die_with_it(tmp_path: Path) -> None:
    process = start(keep_workers, tmp_path, log=tmp_path / "log")
    until = time.monotonic() + 120
    while not (tmp_path / "workers").exists() or not (tmp_path / "workers").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    workers = [psutil.Process(int(pid)) for pid in (tmp_path / "workers").read_text().split()]
    assert len(workers) == 2
    assert {os.getsid(worker.pid) for worker in workers} == {process.pid}
    kill_group(process)
    assert process.poll() == -signal.SIGKILL
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE] == []
