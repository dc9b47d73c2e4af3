"""The lease of a stage: one holder at a time, taken over from the dead and from no one else."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.errors import RunInUseError
from hpc.store import lease as lease_module
from hpc.store.lease import _claim_on, _read_lease, _take_over, lease, live_holder


@pytest.fixture(autouse=True)
def _short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale lease is watched for a moment only before it is taken over."""
    monkeypatch.setattr(lease_module, "WATCHED_BEATS", 0.01)


def test_another_hosts_lease_expires_with_its_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / ".lease.json"
    path.write_text(json.dumps({"host": "node-7", "pid": 1, "born": 0.0}))
    with pytest.raises(RunInUseError, match="node-7"), lease(path):
        pass
    os.utime(path, (0, 0))
    with lease(path):
        assert live_holder(path) == f"process {os.getpid()} on {os.uname().nodename}"
    assert not path.exists()


def test_a_job_that_comes_back_takes_its_own_lease_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lease.json"
    lost = {"host": "node-7", "pid": 1, "born": 0.0, "job": "12", "restart": 0}
    path.write_text(json.dumps(lost))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with pytest.raises(RunInUseError, match="node-7"), lease(path):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with lease(path):
        assert json.loads(path.read_text())["restart"] == 1


@pytest.mark.slow
def test_a_lease_can_be_waited_for(tmp_path: Path) -> None:
    path = tmp_path / ".lease.json"
    path.write_text(json.dumps({"host": "node-7", "pid": 1, "born": 0.0}))
    threading.Timer(0.5, os.utime, (path, (0, 0))).start()
    with lease(path, timeout_s=30):
        assert not path.read_text().count("node-7")


def stale_lease(path: Path) -> Path:
    """The lease of a process on another host, long untouched."""
    path.write_text(json.dumps({"host": "node-7", "pid": 1, "born": 0.0}))
    os.utime(path, (0, 0))
    return path


@pytest.fixture
def _switching_often() -> Iterator[None]:
    """Threads that take turns as often as processes do."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.slow
@pytest.mark.usefixtures("_switching_often")
@pytest.mark.parametrize("half_taken", [False, True])
def test_many_starting_processes_leave_one_holder_of_a_stale_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_taken: bool
) -> None:
    # Contenders look again after a tenth of a heartbeat; each round would wait for a second.
    monkeypatch.setattr(lease_module, "TOUCH_S", 1.0)

    def start() -> None:
        together.wait()
        try:
            with lease(path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.02)
                inside.pop()
        except RunInUseError:
            return

    for number in range(30):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = stale_lease(folder / ".lease.json")
        if half_taken:
            # Someone died on the way of taking it over.
            found = _read_lease(path)
            assert found is not None
            stale_lease(_claim_on(path, found))
        together, inside, most = threading.Barrier(8), [], []
        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most
        assert max(most) == 1
        assert list(folder.iterdir()) == []


def test_a_lease_that_its_holder_touched_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = stale_lease(tmp_path / ".lease.json")
    seen = _read_lease(path)
    assert seen is not None
    path.touch()
    assert not _take_over(path, seen, "me")
    assert json.loads(path.read_text())["host"] == "node-7"
    assert [found.name for found in tmp_path.iterdir()] == [".lease.json"]
