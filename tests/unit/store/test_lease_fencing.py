"""A lease under clocks that disagree and names that agree; its loser publishes nothing more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from other_node import REPOSITORY, start_on_other_node

from hpc.errors import LeaseLostError, RunInUseError
from hpc.job.requeue import is_transient
from hpc.store import lease as lease_module
from hpc.store.identity import Identity, is_alive, own_identity, parse_identity
from hpc.store.lease import Lease, lease, live_holder
from hpc.store.ledger import Failure, Ledger, Record
from hpc.store.plan import make_plan, publish_plan

FAST = "from hpc.store import lease as m; m.TOUCH_S, m.STALE_S = 0.1, 1.0\n"
"""Heartbeats a hundred times as fast."""
TAKE = """
from pathlib import Path; from hpc.errors import RunInUseError; from hpc.store.lease import lease
try:
    with lease(Path({path!r}), {patience}):
        print("taken")
except RunInUseError as error:
    print(error)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lease.json"


@pytest.fixture
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "TOUCH_S", 0.1)
    monkeypatch.setattr(lease_module, "STALE_S", 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("clock_s", [130.0, -130.0])
@pytest.mark.parametrize("host", ["other-node", None])
def test_a_node_with_a_wrong_clock_or_our_name_leaves_a_held_lease_alone(
    path: Path, clock_s: float, host: str | None
) -> None:
    with lease(path) as held:
        other = start_on_other_node(TAKE.format(path=str(path), patience=0.0), host, clock_s)
        printed, _ = other.communicate(timeout=60)
        assert f"in use by process {os.getpid()} on" in printed
        assert held.is_held()


@pytest.mark.usefixtures("_fast")
def test_the_lease_of_a_node_that_dates_files_in_the_past_is_seen_to_live(path: Path) -> None:
    path.write_text(json.dumps({"host": "node-7", "pid": 1, "born": 0.0}))
    over = threading.Event()

    def beat() -> None:
        age = 1000.0
        while not over.wait(0.05):
            age -= 0.05
            os.utime(path, (time.time() - age,) * 2)

    beating = threading.Thread(target=beat)
    os.utime(path, (0, 0))
    beating.start()
    try:
        watch = lease_module._Watch()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert lease_module._acquire(path, "me", watch) is not None
            time.sleep(0.02)
    finally:
        over.set()
        beating.join()
    with lease(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.usefixtures("_fast")
def test_the_lease_of_a_dead_node_that_dated_it_in_the_future_is_not_kept_for_ever(
    path: Path,
) -> None:
    path.write_text(json.dumps({"host": "node-7", "pid": 1, "born": 0.0}))
    os.utime(path, (time.time() + 3600,) * 2)
    with pytest.raises(RunInUseError, match="node-7"), lease(path):
        pass
    begin = time.monotonic()
    with lease(path, timeout_s=30.0):
        assert 1.0 <= time.monotonic() - begin < 10


def test_a_clock_that_is_set_does_not_make_a_living_holder_dead() -> None:
    holder = own_identity()
    assert holder.born is not None
    assert holder.start_ticks is not None
    # What psutil returns once the clock was set: it adds the ticks to the present boot time.
    assert is_alive(replace(holder, born=holder.born + 130)) is True
    assert is_alive(replace(holder, start_ticks=holder.start_ticks - 1)) is False
    assert is_alive(replace(holder, boot_id="another")) is None
    assert is_alive(replace(holder, pid_namespace=1)) is None


def test_an_identity_is_read_as_it_was_written() -> None:
    holder = own_identity()
    assert parse_identity(holder.to_json()) == holder
    assert own_identity() != holder, "each taking of a lease has its own"


@pytest.mark.parametrize(
    "damaged", [b"", b"[]", b"null", b'{"pid": 1}', b"\xff\xfe", b'{"host": 3, "pid": "x"}']
)
def test_a_damaged_lease_is_held_as_long_as_an_empty_one(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "lease.json"
    path.write_bytes(damaged)
    assert live_holder(path) == "a starting process"
    with pytest.raises(RunInUseError, match="a starting process"), lease(path):
        pass
    os.utime(path, (time.time() - 2 * lease_module.TOUCH_S,) * 2)
    assert live_holder(path) is None


def test_a_job_number_of_another_cluster_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    lost = Identity("node-7", 1, born=0.0, job="12", restart=0)
    assert is_alive(replace(lost, cluster="here")) is False
    assert is_alive(replace(lost, cluster="there")) is None
    assert is_alive(lost) is False


def take_away(path: Path) -> str:
    """Another process has the lease now."""
    other = json.dumps({"host": "node-7", "pid": 7, "born": 0.0})
    aside = path.with_name("other")
    aside.write_text(other)
    os.replace(aside, path)
    return other


@pytest.fixture
def lost(path: Path) -> Iterator[Lease]:
    """A lease that another process has taken over."""
    with lease(path) as held:
        take_away(path)
        yield held


def test_who_lost_the_lease_publishes_no_record_no_failure_and_no_plan(
    tmp_path: Path, lost: Lease
) -> None:
    ledger = Ledger(tmp_path / "stage", lost)
    record = Record("000000", "p", "x.tar", 1, 1, "0", 0, "h", "t", "t")
    with pytest.raises(LeaseLostError, match=r"taken over by process 7 on node-7.*sarhpc status`"):
        ledger.publish(record)
    with pytest.raises(LeaseLostError):
        ledger.fail(Failure("000000", "p", 0, 1, "E", "m", "t"))
    with pytest.raises(LeaseLostError):
        publish_plan(make_plan("tile", [{}]), tmp_path / "stage" / "plan.json", lost)
    assert [found for found in (tmp_path / "stage").rglob("*") if found.is_file()] == []


def test_who_lost_the_lease_does_not_seal(tmp_path: Path, lost: Lease) -> None:
    plan = make_plan("tile", [{}])
    ledger = Ledger(tmp_path / "stage", lost)
    Ledger(tmp_path / "stage").publish(
        Record("000000", plan.id, "x.tar", 1, 1, "0", 0, "h", "t", "t")
    )
    with pytest.raises(LeaseLostError):
        ledger.seal(plan)
    assert not ledger.sealed
    assert list(ledger.records()) == ["000000"]


def test_a_lease_that_somebody_removed_is_lost(path: Path) -> None:
    with pytest.raises(LeaseLostError, match="was removed"), lease(path) as held:
        path.unlink()
        held.require_held()


def test_the_loser_says_so_whatever_failed_and_is_not_requeued(path: Path) -> None:
    with pytest.raises(LeaseLostError) as caught, lease(path):
        other = take_away(path)
        raise OSError(5, "Input/output error")
    assert isinstance(caught.value.__cause__, OSError)
    assert not is_transient(caught.value)
    assert path.read_text() == other


@pytest.mark.usefixtures("_fast")
def test_the_loser_is_told_once_within_a_heartbeat(path: Path) -> None:
    printed, seen = threading.Event(), list[int]()

    def on_loss() -> None:
        seen.append(1)
        printed.set()

    with lease(path, on_loss=on_loss):
        take_away(path)
        assert printed.wait(5)
        time.sleep(0.3)
    assert seen == [1]


STAGE = """
import sys, time
from pathlib import Path
from hpc.job.agreement import SingleProcess
from hpc.job.pipeline import JobContext, Stage, run_stage
from hpc.job.stop import StopRequest
from hpc.store.ledger import Record
from hpc.store.plan import make_plan
from hpc.store.rundir import open_run

run, name = open_run(Path({root!r})), {name!r}

def work(work):
    for task in work.todo():
        print("making", task.id, flush=True)
        time.sleep({shard_s})
        work.ledger.publish(
            Record(task.id, work.plan.id, task.id, 1, 1, "0", work.attempt, name, "t", "t"))

def plan(run):
    return make_plan("tile", [{{}}] * 3)

with StopRequest(SingleProcess()) as stop:
    try:
        print(run_stage(run, Stage("tile", (), plan, work), context=JobContext(
            stop, lease_timeout_s=30.0)))
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_process_that_stood_still_while_another_took_over_publishes_nothing(
    tmp_path: Path,
) -> None:
    from hpc.store.rundir import create_run

    run = create_run(tmp_path / "run", "", "f00d")
    first = STAGE.format(root=str(run.root), name="first", shard_s=0.5)
    second = STAGE.format(root=str(run.root), name="second", shard_s=0.0)
    stopped = subprocess.Popen(
        [sys.executable, "-c", FAST + first], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    try:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "making 000000\n"
        assert stopped.stdout.readline() == "making 000001\n"
        stopped.send_signal(signal.SIGSTOP)
        printed, _ = start_on_other_node(FAST + second, "other-node").communicate(timeout=60)
        assert "tile: sealed, 2 of 3 shards made now" in printed
        sealed = run.ledger("tile").manifest.read_bytes()
        attempts = (run.stage("tile") / "attempts.jsonl").read_bytes()
        stopped.send_signal(signal.SIGCONT)
        rest, _ = stopped.communicate(timeout=60)
        assert "LeaseLostError" in rest
        assert run.ledger("tile").manifest.read_bytes() == sealed
        assert (run.stage("tile") / "attempts.jsonl").read_bytes() == attempts
        made = {record.shard: record.host for record in run.ledger("tile").records().values()}
        assert made == {"000000": "first", "000001": "second", "000002": "second"}
        assert not (run.stage("tile") / "records").exists()
    finally:
        stopped.kill()
        stopped.wait()
