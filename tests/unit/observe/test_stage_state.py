"""The state of a stage where several signs compete: the weightier, the newest, the numeric last."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from hpc.job.pipeline import Stage, StageProgress
from hpc.observe.state import StageState, last_row, newest_checkpoint, stage_state
from hpc.store.attempts import begin_attempt, end_attempt
from hpc.store.ledger import Failure, Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, create_run, now

CLOCK = 1_800_000_000.0
TILE = Stage("tile", (), lambda _: make_plan("tile", []), lambda _: None)
TRAIN = Stage("train", ("tile",), lambda _: make_plan("train", []), lambda _: None)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def look(run: RunDir, stage: Stage = TILE) -> StageState:
    return stage_state(run, stage, CLOCK)


def publish(run: RunDir, shards: int, done: int, seal: bool = False) -> None:
    plan = make_plan("tile", [{"n": n} for n in range(shards)])
    publish_plan(plan, run.plan_file("tile"))
    for task in plan.shards[:done]:
        run.ledger("tile").publish(
            Record(task.id, plan.id, "/d", 3, 9, "aa", 0, "n1", now(), now(), 1.0, {"dark": 2})
        )
    if seal:
        run.ledger("tile").seal(plan)


def aged(path: Path, age_s: float, text: str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (CLOCK - age_s, CLOCK - age_s))
    return path


def leased(run: RunDir, age_s: float = 0.0) -> None:
    """A lease of this living process."""
    holder = {"host": socket.gethostname(), "pid": os.getpid()}
    born = psutil.Process().create_time()
    aged(run.stage("tile") / ".lease.json", age_s, json.dumps({**holder, "born": born}))


def test_states_follow_each_other_as_work_goes_on(run: RunDir) -> None:
    assert look(run).state == "READY"
    assert look(run, TRAIN).state == "WAITING"
    publish(run, 3, 1)
    found = look(run)
    assert (found.state, found.done, found.planned) == ("PARTIAL", 1, 3)
    assert (found.samples, found.rejected, found.failed) == (3, 2, 0)
    leased(run)
    assert look(run).state == "RUNNING"
    (run.stage("tile") / ".lease.json").unlink()
    publish(run, 3, 3, seal=True)
    found = look(run)
    assert (found.state, found.done, found.samples, found.rejected) == ("COMPLETE", 3, 9, 6)
    assert (found.planned, found.failed, found.attempts) == (3, 0, 0)
    assert look(run, TRAIN).state == "READY"


def test_only_the_newest_attempt_can_be_lost(run: RunDir) -> None:
    directory = run.stage("tile")
    begin_attempt(directory, 0)
    number = begin_attempt(directory, 0)
    assert look(run).state == "LOST"
    end_attempt(directory, number, 1, 0, "saved", "PREEMPT")
    assert look(run).state == "PARTIAL", "the first never ended, and another came after it"
    begin_attempt(directory, 1)
    assert look(run).state == "LOST"


def test_an_attempt_without_a_lease_runs_while_its_process_starts(run: RunDir) -> None:
    number = begin_attempt(run.stage("tile"), 0)
    found = stage_state(run, TILE)
    process = f"process {os.getpid()} on {socket.gethostname()}"
    assert (found.state, found.holder) == ("RUNNING", process)
    assert look(run).state == "LOST", "it should have had a lease long ago"
    end_attempt(run.stage("tile"), number, 0, 0, "saved", "PREEMPT")
    assert stage_state(run, TILE).state == "PARTIAL"


def test_an_attempt_of_a_dead_process_is_lost_at_once(run: RunDir) -> None:
    begin_attempt(run.stage("tile"), 0)
    file = next((run.stage("tile") / "attempts").iterdir())
    dead = subprocess.Popen(["true"])
    dead.wait()
    file.write_text(file.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {dead.pid}'))
    assert str(dead.pid) in file.read_text()
    assert stage_state(run, TILE).state == "LOST"


@pytest.mark.parametrize(("shards", "read"), [(2, True), (3, False)])
def test_so_many_records_are_read_and_no_more(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, shards: int, read: bool
) -> None:
    monkeypatch.setattr("hpc.observe.state.MAX_RECORDS_READ", 2)
    publish(run, 9, shards)
    found = look(run)
    assert (found.samples, found.rejected) == ((3 * shards, 2 * shards) if read else (None, None))
    assert found.done == shards


def test_a_failure_outweighs_an_attempt_that_left_no_word(run: RunDir) -> None:
    directory = run.stage("tile")
    begin_attempt(directory, 0, element=0)
    assert look(run).state == "LOST"
    end_attempt(directory, begin_attempt(directory, 0, element=1), 0, 5, "DataError: torn")
    assert look(run).state == "FAILED"


def test_a_failed_shard_outweighs_an_attempt_that_left_no_word(run: RunDir) -> None:
    publish(run, 3, 1)
    begin_attempt(run.stage("tile"), 0)
    run.ledger("tile").fail(Failure("000002", "p", 0, 1, "DataError", "torn", now()))
    found = look(run)
    assert (found.state, found.failed) == ("FAILED", 1)


def test_the_newest_attempt_counts_alone(run: RunDir) -> None:
    directory = run.stage("tile")
    end_attempt(directory, begin_attempt(directory, 0), 0, 1, "why")
    assert look(run).state == "FAILED"
    assert look(run).failure == "attempt 0 exit=1: why"
    end_attempt(directory, begin_attempt(directory, 0), 1, 0, "saved", "PREEMPT")
    found = look(run)
    assert (found.state, found.failure, found.attempts) == ("PARTIAL", None, 2)


def test_of_several_array_elements_the_first_bad_one_is_told(run: RunDir) -> None:
    directory = run.stage("tile")
    for element in (4, 2):
        end_attempt(directory, begin_attempt(directory, 0, element=element), 0, 1, "why")
    reason = "2 array elements failed, the first: element 2 attempt 0 exit=1: why"
    assert look(run).failure == reason


@pytest.mark.parametrize("ages", [(300.0, 20.0), (20.0, 300.0)])
def test_the_age_of_life_is_that_of_its_newest_sign(run: RunDir, ages: tuple[float, float]) -> None:
    leased(run)
    for rank, age in enumerate(ages):
        text = json.dumps({"seconds": age / 10})
        aged(run.stage("tile") / "heartbeat" / f"r{rank:05d}.json", age, text)
    found = look(run)
    assert (found.heartbeat_age_s, found.heartbeat_interval_s) == (20.0, 2.0)


def test_before_its_first_heartbeat_the_lease_is_the_sign_of_life(run: RunDir) -> None:
    leased(run, age_s=7.0)
    found = look(run)
    assert (found.heartbeat_age_s, found.heartbeat_interval_s) == (7.0, None)
    assert found.holder == f"process {os.getpid()} on {socket.gethostname()}"
    (run.stage("tile") / ".lease.json").unlink()
    assert look(run).heartbeat_age_s is None


def test_heartbeats_of_an_earlier_attempt_are_no_sign_of_this_one(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age in (400, 100):
        monkeypatch.setattr("hpc.store.attempts.now", lambda age=age: stamp(age))
        begin_attempt(run.stage("tile"), 0)
    leased(run, age_s=7.0)
    beat = run.stage("tile") / "heartbeat" / "r00000.json"
    aged(beat, 200.0, '{"seconds": 3.0}')
    assert (look(run).heartbeat_age_s, look(run).heartbeat_interval_s) == (7.0, None)
    for age in (100.0, 50.0):  # from the moment it began
        aged(beat, age, '{"seconds": 3.0}')
        assert (look(run).heartbeat_age_s, look(run).heartbeat_interval_s) == (age, 3.0)


def test_of_several_holders_the_coordinator_is_told_and_then_the_first_element(run: RunDir) -> None:
    for name in (".lease-10", ".lease-2", ".lease"):
        holder = {"host": f"node{name}", "pid": 7, "born": 0.0}
        aged(run.stage("tile") / f"{name}.json", 0.0, json.dumps(holder))
    for name in (".lease", ".lease-2", ".lease-10"):
        assert look(run).holder == f"process 7 on node{name}"
        (run.stage("tile") / f"{name}.json").unlink()
    assert look(run).holder is None


def test_a_clock_that_runs_behind_makes_nothing_younger_than_new(run: RunDir) -> None:
    leased(run, age_s=-50.0)
    assert look(run).heartbeat_age_s == 0.0


def checkpoint(run: RunDir, name: str, age_s: float = 0.0) -> None:
    path = run.stage("tile") / "checkpoints" / name
    path.mkdir(parents=True)
    os.utime(path, (CLOCK - age_s, CLOCK - age_s))


def test_the_newest_checkpoint_is_that_of_the_largest_step(run: RunDir) -> None:
    assert newest_checkpoint(run.stage("tile")) is None
    assert (look(run).checkpoint, look(run).checkpoint_s) == (None, None)
    for name, age in (("step_00000020", 5.0), ("step_100000000", 60.0), ("step_99999999", 9.0)):
        checkpoint(run, name, age)
    checkpoint(run, "step_200000000.bad")
    found = look(run)
    assert (found.checkpoint, found.checkpoint_s) == ("step_100000000", 60.0)


def test_a_checkpoint_that_is_removed_while_it_is_looked_at_has_no_age(run: RunDir) -> None:
    directory = run.stage("tile") / "checkpoints"
    directory.mkdir(parents=True)
    # Listed, and gone when its time is asked for: as a link to nothing.
    (directory / "step_00000010").symlink_to("gone")
    found = look(run)
    assert (found.checkpoint, found.checkpoint_s) == ("step_00000010", None)


def stamp(age_s: float) -> str:
    return datetime.datetime.fromtimestamp(CLOCK - age_s, datetime.UTC).isoformat()


def test_the_rate_is_that_of_the_live_attempt(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(run, 10, 6)
    monkeypatch.setattr("hpc.store.attempts.now", lambda: stamp(400))
    begin_attempt(run.stage("tile"), 0)
    monkeypatch.setattr("hpc.store.attempts.now", lambda: stamp(100))
    begin_attempt(run.stage("tile"), 2)
    assert (look(run).per_s, look(run).left_s) == (None, None), "nobody works on it"
    leased(run)
    found = look(run)
    assert found.per_s == pytest.approx(0.04)
    assert found.left_s == pytest.approx(100)


@pytest.mark.parametrize(
    ("progress", "per_s", "left_s"),
    [
        (StageProgress(30, 100, "steps", per_s=0.5), 0.5, 140.0),
        (StageProgress(30, None, "steps", per_s=0.5), 0.5, None),
        (StageProgress(30, 100, "steps"), None, None),
    ],
)
def test_the_progress_inside_a_shard_has_the_rate_and_the_time_it_tells(
    run: RunDir, progress: StageProgress, per_s: float | None, left_s: float | None
) -> None:
    stage = dataclasses.replace(TILE, live_progress=lambda _: progress)
    leased(run)
    found = look(run, stage)
    assert (found.per_s, found.left_s, found.progress) == (per_s, left_s, progress)
    (run.stage("tile") / ".lease.json").unlink()
    assert (look(run, stage).per_s, look(run, stage).left_s) == (None, None)


def test_an_attempt_of_less_than_a_second_counts_as_one_of_a_second(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc.store.attempts.now", lambda: stamp(0))
    begin_attempt(run.stage("tile"), 0)
    publish(run, 10, 6)
    leased(run)
    found = look(run)
    assert (found.per_s, found.left_s) == (6.0, pytest.approx(4 / 6))


def test_an_attempt_without_progress_has_no_rate(run: RunDir) -> None:
    publish(run, 10, 2)
    for done in (0, 2):
        begin_attempt(run.stage("tile"), done)
    leased(run)
    found = look(run)
    assert (found.state, found.per_s, found.left_s) == ("RUNNING", None, None)


def test_the_newest_whole_row_of_a_growing_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) is None
    path.write_text('{"step": 1}\n{"step": 2}\n[3]\n{"step": 4')
    assert last_row(path) == {"step": 2}
    path.write_text("".join(f'{{"step": {n}}}\n' for n in range(5000)))
    assert last_row(path, most_bytes=64) == {"step": 4999}
    assert last_row(path, most_bytes=8) is None, "no more than that is read of a long file"
    path.write_text('{"step": 1}\n' + json.dumps({"layers": "x" * 60_000}))
    assert last_row(path) == {"layers": "x" * 60_000}, "64 KiB are read"


def test_now_is_the_clock_unless_one_is_given(run: RunDir) -> None:
    leased(run)
    os.utime(run.stage("tile") / ".lease.json", (time.time() - 30,) * 2)
    found = stage_state(run, TILE)
    assert found.heartbeat_age_s is not None
    assert 29 < found.heartbeat_age_s < 60
