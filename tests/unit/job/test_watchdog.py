"""Work that stands still is found, says where on every rank, and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched_ranks import LIMITS

from hpc.cluster.process_group import COLLECTIVE_TIMEOUT
from hpc.job.requeue import requeue_reason_after_kill
from hpc.job.watchdog import HangLimits, Watchdog, WatchedProcess, WatchedStop
from hpc.store.attempts import begin_attempt, crash_loop, end_attempt, read_attempts

pytestmark = pytest.mark.slow

Processes = list[subprocess.Popen[bytes]]


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    """Three ranks of job 12 that make 40 steps and then stand still."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    script = str(Path(__file__).with_name("watched_ranks.py"))
    started = [
        subprocess.Popen([sys.executable, script, str(tmp_path), str(rank), "3", "40"])
        for rank in range(3)
    ]
    yield started
    for process in started:
        process.kill()
        process.wait()


def stacks(directory: Path) -> dict[str, str]:
    found = (directory / "logs").glob("stacks-12-0-*.txt")
    return {path.stem[-1]: path.read_text() for path in found}


def test_all_ranks_say_where_they_stand_and_end(tmp_path: Path, ranks: Processes) -> None:
    assert [process.wait(timeout=60) for process in ranks] == [75, 75, 75]
    found = stacks(tmp_path)
    assert sorted(found) == ["0", "1", "2"]
    assert all('watched_ranks.py", line' in text for text in found.values())
    # Whoever came last to the standstill may have been asked while it still moved.
    assert any("stand_still_here" in text for text in found.values())
    [last] = [row for row in read_attempts(tmp_path) if "to" in row]
    assert (last["stop"], last["exit"], last["to"]) == ("HANG", 75, 3)
    assert "no progress for" in last["reason"]
    assert "no answer" not in last["reason"]
    assert requeue_reason_after_kill(tmp_path) == last["reason"], "the job's script brings it back"


def test_a_frozen_rank_is_named_by_the_others(tmp_path: Path, ranks: Processes) -> None:
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "heartbeat").glob("r*.json"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ranks[1].send_signal(signal.SIGSTOP)
    assert ranks[0].wait(timeout=60) == ranks[2].wait(timeout=60) == 75
    [last] = [row for row in read_attempts(tmp_path) if "to" in row]
    assert "no answer from rank 1" in last["reason"]
    assert sorted(stacks(tmp_path)) == ["0", "2"]


def test_a_hang_counts_towards_the_crash_loop(tmp_path: Path) -> None:
    for _ in range(3):
        end_attempt(tmp_path, begin_attempt(tmp_path, 3), 3, 75, "hang: ...", "HANG")
    assert crash_loop(tmp_path) is not None


@pytest.mark.parametrize("jump_s", [130.0, -130.0])
def test_a_clock_that_is_set_neither_ends_the_work_nor_ages_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    real, ended = time.time, list[int]()
    process = WatchedProcess(tmp_path, rank=2, attempt=5)
    with Watchdog(process, lambda: 0, LIMITS, exit_process=ended.append).watching() as dog:
        dog.beat()
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        for _ in range(10):
            dog.beat()
            time.sleep(0.05)
        assert abs(process.heartbeat.stat().st_mtime - real()) < 5
    assert ended == []


def test_the_heartbeat_tells_the_last_progress_not_that_the_thread_lives(tmp_path: Path) -> None:
    process = WatchedProcess(tmp_path, rank=2, attempt=5)
    with Watchdog(process, lambda: 0, LIMITS).watching() as dog:
        time.sleep(0.5)
        assert not process.heartbeat.exists(), "nothing was done yet"
        dog.beat()
        dog.beat()
        beaten = time.time()
        time.sleep(0.9)
        heartbeat = json.loads(process.heartbeat.read_text())
        assert (heartbeat["rank"], heartbeat["attempt"], heartbeat["pid"]) == (2, 5, os.getpid())
        assert process.heartbeat.stat().st_mtime == pytest.approx(beaten, abs=0.4)
    assert not process.heartbeat.exists()


def test_the_limit_follows_the_usual_step(tmp_path: Path) -> None:
    dog = Watchdog(
        WatchedProcess(tmp_path), lambda: 0, HangLimits(startup_s=7, min_s=0.001, factor=10)
    )
    assert dog.limit_s == 7
    for _ in range(5):
        dog.beat()
        time.sleep(0.02)
    assert 0.2 <= dog.limit_s < 2


def test_asking_whether_to_stop_is_progress(tmp_path: Path) -> None:
    class Asked:
        def agree(self) -> None:
            return None

        def agreed(self, urgency: int) -> None:
            return None

        def urgency(self) -> int:
            return 0

    for asks in (WatchedStop.agree, lambda stop: stop.agreed(stop.urgency())):
        dog = Watchdog(WatchedProcess(tmp_path), lambda: 0, HangLimits(startup_s=7, min_s=1))
        for _ in range(3):
            asks(WatchedStop(Asked(), dog))
        assert dog.limit_s == 1


def test_hang_is_noticed_before_a_collective_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("hpc.job.watchdog.time.monotonic", lambda: clock[0])
    limits = HangLimits()
    dog = Watchdog(WatchedProcess(tmp_path), lambda: 0, limits)
    assert COLLECTIVE_TIMEOUT.total_seconds() > limits.startup_s
    for _ in range(5):  # steps of half an hour
        dog.beat()
        clock[0] += 1800.0
    assert dog.limit_s == limits.max_s
    assert COLLECTIVE_TIMEOUT.total_seconds() > limits.max_s + limits.response_s
