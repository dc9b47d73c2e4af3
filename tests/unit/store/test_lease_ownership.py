"""Whose a lease is: holders told apart by host, number and birth, kept alive by a heartbeat."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from hpc.errors import RunInUseError
from hpc.store import lease as lease_module
from hpc.store.lease import lease, live_holder

HERE = socket.gethostname()
BORN = psutil.Process().create_time()


def hold(path: Path, pid: int, born: float, host: str = HERE, **more: Any) -> Path:
    """A lease as another process would have written it."""
    path.write_text(json.dumps({"host": host, "pid": pid, "born": born, **more}))
    return path


def soon(condition: Callable[[], bool]) -> bool:
    """Whether `condition` comes true within five seconds."""
    until = time.monotonic() + 5
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lease.json"


@pytest.fixture
def _fast_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "TOUCH_S", 0.01)


@contextlib.contextmanager
def child() -> Iterator[int]:
    """Number of a process that lives until the block ends, and is a zombie if killed before."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_lease_of_another_living_process_is_respected_until_it_dies(path: Path) -> None:
    with child() as pid:
        hold(path, pid, psutil.Process(pid).create_time())
        assert live_holder(path) == f"process {pid} on {HERE}"
        with pytest.raises(RunInUseError, match=f"in use by process {pid} on"), lease(path):
            pass
        assert json.loads(path.read_text())["pid"] == pid
        os.kill(pid, signal.SIGKILL)
        # Nobody has waited for it: a zombie, which holds nothing any more.
        assert soon(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        assert live_holder(path) is None
        with lease(path):
            assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("shift_s", "alive"),
    [(0.0, True), (0.9, True), (-0.9, True), (1.0, False), (1.5, False), (-1.5, False)],
)
def test_a_number_that_another_process_has_now_is_not_the_holder(
    path: Path, shift_s: float, alive: bool
) -> None:
    hold(path, os.getpid(), BORN + shift_s)
    assert (live_holder(path) is not None) is alive


def test_a_process_that_is_gone_holds_nothing(path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    born = psutil.Process(pid).create_time()
    os.waitpid(pid, 0)
    assert live_holder(hold(path, pid, born)) is None


@pytest.fixture
def _still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)


@pytest.mark.usefixtures("_still_clock")
@pytest.mark.parametrize(("age_s", "alive"), [(0, True), (119.5, True), (120, False), (130, False)])
def test_another_hosts_holder_lives_for_two_minutes_after_its_last_beat(
    path: Path, age_s: float, alive: bool
) -> None:
    # A process of the same number and birth here says nothing of that host.
    hold(path, os.getpid(), BORN, host="node-7")
    os.utime(path, (1000.0 - age_s, 1000.0 - age_s))
    assert (live_holder(path) is not None) is alive


@pytest.mark.usefixtures("_still_clock")
@pytest.mark.parametrize(("age_s", "alive"), [(0, True), (9.5, True), (10, False), (12, False)])
def test_an_empty_lease_is_a_starting_process_for_one_heartbeat(
    path: Path, age_s: float, alive: bool
) -> None:
    path.touch()
    os.utime(path, (1000.0 - age_s, 1000.0 - age_s))
    assert live_holder(path) == ("a starting process" if alive else None)


@pytest.mark.parametrize(
    ("job", "restart", "alive"),
    [("12", 0, False), ("12", 1, True), ("12", 2, True), ("13", 0, True)],
)
def test_only_an_earlier_start_of_this_job_is_known_to_be_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch, job: str, restart: int, alive: bool
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    hold(path, 1, 0.0, host="node-7", job=job, restart=restart)
    assert (live_holder(path) is not None) is alive


def test_a_lease_says_who_holds_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    with lease(path):
        document = json.loads(path.read_text())
    expected = {"host": HERE, "pid": os.getpid(), "born": BORN, "job": "12", "restart": 0}
    assert {name: document[name] for name in expected} == expected
    monkeypatch.delenv("SLURM_JOB_ID")
    with lease(path):
        again = json.loads(path.read_text())
    assert set(document) - set(again) == {"job", "restart"}
    assert again["token"] != document["token"]
    assert again["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.usefixtures("_fast_heartbeat")
def test_the_heartbeat_moves_the_time_of_the_lease(path: Path) -> None:
    with lease(path):
        for _ in range(2):
            os.utime(path, (0, 0))
            assert soon(lambda: path.stat().st_mtime > time.time() - 60)
    assert not path.exists()


def test_the_heartbeat_keeps_no_process_alive(path: Path) -> None:
    before = {*threading.enumerate()}
    with lease(path):
        assert [thread.daemon for thread in {*threading.enumerate()} - before] == [True]


@pytest.mark.usefixtures("_fast_heartbeat")
def test_a_file_system_that_is_away_for_a_moment_does_not_end_the_heartbeat(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    utime, refused = os.utime, []

    def flaky(*words: Any) -> None:
        if len(refused) < 3:
            refused.append(1)
            raise OSError(5, "Input/output error")
        utime(*words)

    with lease(path):
        utime(path, (0, 0))
        monkeypatch.setattr(os, "utime", flaky)
        assert soon(lambda: path.stat().st_mtime > 0)
    assert len(refused) == 3


@pytest.mark.usefixtures("_fast_heartbeat")
def test_a_foreign_lease_found_in_the_block_is_neither_touched_nor_removed(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), lease(path):
        foreign = hold(path.with_name("foreign"), 7, 0.0, host="node-7")
        os.utime(foreign, (0, 0))
        os.replace(foreign, path)
        assert soon(lambda: "was taken over by process 7" in caplog.text)
        time.sleep(0.05)
        assert path.stat().st_mtime == 0
    assert json.loads(path.read_text())["host"] == "node-7"
    assert caplog.text.count("was taken over by") == 1


def test_a_lease_taken_between_creating_and_writing_it_is_not_ours(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fdopen = os.fdopen

    def overtaken(descriptor: int, mode: str) -> IO[Any]:
        # The file system hung here, and another host took the empty lease for a dead one's.
        os.replace(hold(path.with_name("foreign"), 7, 0.0, host="node-7"), path)
        return fdopen(descriptor, mode)

    monkeypatch.setattr(os, "fdopen", overtaken)
    with pytest.raises(RunInUseError, match="process 7 on node-7"), lease(path):
        pass
    assert json.loads(path.read_text())["pid"] == 7


def test_a_lease_that_cannot_be_written_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, mode: str) -> IO[Any]:
        os.close(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="No space"), lease(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_nobody_holds_what_is_not_there(path: Path) -> None:
    assert live_holder(path) is None


def test_a_block_that_fails_gives_its_lease_back(path: Path) -> None:
    with pytest.raises(KeyError), lease(path):
        raise KeyError
    assert list(path.parent.iterdir()) == []


def test_patience_looks_every_two_seconds_to_its_end_and_says_so_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hold(path, 7, 0.0, host="node-7")
    clock, slept = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        assert len(slept) < 9
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", sleep)
    with caplog.at_level(logging.INFO), pytest.raises(RunInUseError), lease(path, timeout_s=4.5):
        pass
    assert slept == [2.0, 2.0, 0.5]
    assert caplog.text.count("waiting up to 4 s") == 1


@pytest.mark.parametrize("ahead_s", [3600, -3600])
def test_a_holder_that_is_silent_for_two_minutes_is_dead_whatever_its_clock_says(
    path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    hold(path, 7, 0.0, host="node-7")
    os.utime(path, (time.time() + ahead_s,) * 2)
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        assert clock[0] < 300

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", sleep)
    with lease(path, timeout_s=190.0):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    # A date of the past looks stale and is watched for a few heartbeats, one of the future as long
    # as a holder may be silent.
    waited_s = clock[0] - 100
    assert 120 <= waited_s <= 123 if ahead_s > 0 else 25 <= waited_s <= 27


def gone() -> tuple[int, float]:
    """Number and birth of a process that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    born = psutil.Process(pid).create_time()
    os.waitpid(pid, 0)
    return pid, born


def test_a_lease_that_another_takes_over_meanwhile_is_left_to_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(path, *gone())
    claim_on = lease_module._claim_on

    def overtaken(place: Path, stale: lease_module._LeaseState) -> Path:
        os.replace(hold(path.with_name("faster"), 7, 0.0, host="node-7"), path)
        return claim_on(place, stale)

    monkeypatch.setattr(lease_module, "_claim_on", overtaken)
    with pytest.raises(RunInUseError, match="process 7 on node-7"), lease(path):
        pass
    assert json.loads(path.read_text())["pid"] == 7
    assert list(path.parent.iterdir()) == [path], "the claim is given back"


def test_who_is_being_overtaken_by_a_living_process_does_not_wait_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(path, *gone())
    stale = lease_module._read_lease(path)
    assert stale is not None
    claim = lease_module._claim_on(path, stale)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with child() as pid:
        hold(claim, pid, psutil.Process(pid).create_time())
        with pytest.raises(RunInUseError, match=f"process {pid} on"), lease(path):
            pass
    assert slept == []
    assert lease_module._read_lease(path) == stale


@pytest.mark.usefixtures("_fast_heartbeat")
def test_the_loss_of_a_lease_is_announced_once(path: Path) -> None:
    losses: list[int] = []
    with lease(path, on_loss=lambda: losses.append(1)):
        os.replace(hold(path.with_name("foreign"), 7, 0.0, host="node-7"), path)
        assert soon(lambda: losses)
        time.sleep(0.05)
    assert losses == [1]
