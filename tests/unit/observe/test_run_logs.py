from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path

import pytest

from hpc.job.pipeline import Stage
from hpc.observe.logs import (
    BATCH,
    LogFollower,
    failure_cause,
    follow,
    log_files,
    newest_logs,
    tail,
)
from hpc.store.attempts import begin_attempt, end_attempt
from hpc.store.plan import make_plan
from hpc.store.rundir import RunDir, create_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def write(run: RunDir, name: str, text: str, age: float = 0.0) -> Path:
    path = run.logs("tile") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_a_log_knows_job_task_and_attempt_from_its_name(run: RunDir) -> None:
    names = ("11_0_log.err", "11_3.a2.log", "11_7_1.a0.log", "11_7_batch.log", "dask.log")
    for name in names:
        write(run, name, "x")
    found = {f.path.name: (f.job, f.task, f.attempt) for f in log_files(run, "tile")}
    assert found == {
        "11_0_log.err": ("11", 0, 0),
        "11_3.a2.log": ("11", 3, 2),
        "11_7_1.a0.log": ("11_7", 1, 0),
        "11_7_batch.log": ("11_7", BATCH, 0),
        "dask.log": ("", 0, 0),
    }


def test_the_newest_start_is_shown_first_rank_and_last_speaker(run: RunDir) -> None:
    write(run, "11_0.a0.log", "old", age=100)
    write(run, "11_0.a1.log", "rank 0", age=20)
    write(run, "11_1.a1.log", "rank 1", age=10)
    write(run, "11_2.a1.log", "rank 2 died", age=5)
    write(run, "11_3.a1.log", "", age=1)
    assert [f.task for f in newest_logs(run, "tile")] == [0, 2]
    write(run, "11_batch.log", "slurmstepd: error: CANCELLED DUE TO TIME LIMIT", age=1)
    assert [f.task for f in newest_logs(run, "tile")] == [0, BATCH]


def test_a_job_that_never_got_to_its_tasks_shows_what_slurm_said(run: RunDir) -> None:
    write(run, "12_batch.log", "module: command not found")
    assert [f.path.name for f in newest_logs(run, "tile")] == ["12_batch.log"]


def test_the_end_of_a_long_log_is_read_from_its_end(run: RunDir) -> None:
    path = write(run, "big.log", "".join(f"line {n}\n" for n in range(50_000)))
    assert tail(path, 2) == ["line 49998", "line 49999"]
    assert len(tail(path, 20_000)) == 20_000
    assert tail(path, 0) == []
    assert len(tail(path, 10**6)) == 50_000


def test_what_is_new_is_copied_once_under_its_name(run: RunDir) -> None:
    path, out, follower = write(run, "a.log", "old\n"), io.StringIO(), LogFollower()
    follower.skip_existing([path])
    assert not follower.copy([path], out)
    with path.open("a") as file:
        file.write("new\n")
    assert follower.copy([path], out, named=True)
    assert not follower.copy([path], out, named=True)
    assert out.getvalue() == f"==> {path}\nnew\n"


def test_following_sees_new_files_until_the_end(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    write(run, "11_0.a0.log", "before\n")
    done = threading.Event()
    thread = threading.Thread(
        target=follow,
        args=(lambda: [file.path for file in log_files(run, "tile")],),
        kwargs={"ended": done.is_set, "poll_s": 0.01},
    )
    thread.start()
    time.sleep(0.1)
    (run.logs("tile") / "11_0.a1.log").write_text("came back\n")
    done.set()
    thread.join()
    out = capsys.readouterr().out
    assert "came back" in out
    assert "before" not in out


def test_the_cause_of_a_stage_whose_attempt_was_killed_is_one_line(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc.observe.state.MAX_START_S", -1.0)
    stages = [Stage("train", (), lambda _: make_plan("train", [{}]), lambda _: None)]
    assert failure_cause(run, stages) is None
    attempt = begin_attempt(run.stage("train"), 0)
    cause = str(failure_cause(run, stages))
    assert cause.startswith("train its last attempt was killed, as no end row was written")
    assert f"sarhpc logs {run.root} --stage train" in cause
    end_attempt(run.stage("train"), attempt, 1, 0, "saved", "PREEMPT")
    assert failure_cause(run, stages) is None
