"""A job asks for itself once, and again only where Slurm did not take the asking."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hpc.cluster.slurm import QueuedJob
from hpc.errors import (
    ConfigError,
    CrashLoopError,
    DataError,
    IncompleteError,
    NumericalError,
    RunInUseError,
    StopRequestedError,
    TransientError,
    VerificationError,
)
from hpc.job.requeue import (
    RequeuePolicy,
    is_transient,
    main,
    requeue_before_deadline,
    requeue_reason,
    requeue_reason_after_kill,
    time_limit_reason,
)
from hpc.store.attempts import (
    HANG,
    begin_attempt,
    element_file,
    end_attempt,
    open_attempt,
    withdraw_attempt,
)
from hpc.store.rundir import create_run, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission


class Scheduler:
    """What Slurm is asked, and the errors it answers with before it takes one."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.when = 0.0
        self.errors: list[Exception] = []
        self.busy = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def requeue(self, job_id: str) -> None:
        self.asked.append(job_id)
        self.when = time.time()
        self.busy.set()
        assert self.free.wait(20)
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    slurm = Scheduler()
    monkeypatch.setattr("hpc.cluster.bad_nodes.requeue_elsewhere", slurm.requeue)
    return slurm


def test_a_job_that_was_taken_is_not_asked_for_again(scheduler: Scheduler) -> None:
    policy = RequeuePolicy("scontrol", "12")
    policy.request("preempted")
    policy.request("failed")
    assert scheduler.asked == ["12"]


def test_a_policy_is_shown_and_compared_by_its_mode_and_job() -> None:
    assert RequeuePolicy("scontrol", "12") == RequeuePolicy("scontrol", "12")
    assert RequeuePolicy("scontrol", "12") != RequeuePolicy("scontrol", "13")
    assert repr(RequeuePolicy("chain", None)) == "RequeuePolicy(mode='chain', job_id=None)"


def test_an_asking_that_failed_is_made_again(scheduler: Scheduler) -> None:
    scheduler.errors = [TransientError("no answer"), TransientError("no answer")]
    policy = RequeuePolicy("scontrol", "12")
    for _ in range(2):
        with pytest.raises(TransientError, match="no answer"):
            policy.request("preempted")
    policy.request("preempted")
    policy.request("preempted")
    assert scheduler.asked == ["12", "12", "12"]


@pytest.mark.parametrize("fails", [False, True])
def test_who_comes_while_another_asks_waits_for_the_answer(
    scheduler: Scheduler, fails: bool
) -> None:
    policy = RequeuePolicy("scontrol", "12")
    scheduler.free.clear()
    scheduler.errors = [TransientError("no answer")] if fails else []

    def first() -> None:
        if fails:
            with pytest.raises(TransientError):
                policy.request("the end of the work")
        else:
            policy.request("the end of the work")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert scheduler.busy.wait(20)
    threads.append(threading.Thread(target=policy.request, args=("the last resort",)))
    threads[1].start()
    time.sleep(0.02)
    assert scheduler.asked == ["12"]
    scheduler.free.set()
    for thread in threads:
        thread.join(20)
    assert scheduler.asked == (["12", "12"] if fails else ["12"])


@pytest.mark.parametrize(("mode", "job"), [("chain", "12"), ("none", "12"), ("scontrol", None)])
def test_a_job_that_cannot_ask_says_so(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, mode: str, job: str | None
) -> None:
    policy = RequeuePolicy(mode, job)
    assert not policy.can_requeue
    with caplog.at_level(logging.INFO):
        policy.request("preempted")
    assert scheduler.asked == []
    assert "preempted" in caplog.text
    assert ("successor" in caplog.text) == (mode == "chain")


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "requeue-before-deadline"]


def test_the_last_resort_is_over_with_its_block(scheduler: Scheduler) -> None:
    with requeue_before_deadline(RequeuePolicy("scontrol", "12"), time.time() + 0.2):
        [watcher] = watchers()
        assert watcher.daemon, "it keeps no process alive"
    watcher.join(20)
    assert not watcher.is_alive()
    assert scheduler.asked == [], "the block has ended, and what comes next is its own affair"


def test_the_last_resort_asks_when_its_time_has_come_and_not_before(scheduler: Scheduler) -> None:
    ends = time.time() + 0.05
    with requeue_before_deadline(RequeuePolicy("scontrol", "12"), ends):
        assert scheduler.busy.wait(20)
    assert scheduler.asked == ["12"]
    assert ends <= scheduler.when < ends + 20


@pytest.mark.parametrize(("mode", "ends"), [("chain", 0.0), ("scontrol", None)])
def test_without_a_way_back_or_an_end_nobody_watches(
    scheduler: Scheduler, mode: str, ends: float | None
) -> None:
    with requeue_before_deadline(RequeuePolicy(mode, "12"), ends):
        assert watchers() == []
    assert scheduler.asked == []


def test_a_last_resort_that_fails_leaves_the_asking_to_the_end_of_the_work(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.errors = [TransientError("no answer")]
    policy = RequeuePolicy("scontrol", "12")
    with requeue_before_deadline(policy, time.time() - 1):
        for watcher in watchers():
            watcher.join(20)
    assert "not requeued: no answer" in caplog.text
    policy.request("out of time")
    assert scheduler.asked == ["12", "12"]


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("x"),
        CrashLoopError("x"),
        DataError("x"),
        IncompleteError("x"),
        NumericalError("x"),
        RunInUseError("x"),
        VerificationError("x"),
        StopRequestedError("x", requeue=True),
        KeyboardInterrupt(),
        SystemExit(1),
    ],
)
def test_what_would_end_the_same_way_does_not_pass(error: BaseException) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize(
    "error", [TransientError("x"), OSError(5, "x"), MemoryError(), ValueError()]
)
def test_trouble_of_the_machine_may_pass(error: Exception, tmp_path: Path) -> None:
    assert is_transient(error)
    assert requeue_reason(error, tmp_path) == f"{type(error).__name__}: {error}"


def test_a_crash_loop_of_one_element_keeps_no_other_away(tmp_path: Path) -> None:
    for _ in range(3):
        end_attempt(tmp_path, begin_attempt(tmp_path, 0, element=3), 0, 1, "why")
    assert requeue_reason(TransientError("x"), tmp_path, 3) is None
    assert requeue_reason(TransientError("x"), tmp_path, 4) is not None
    assert requeue_reason(TransientError("x"), tmp_path) is not None


def queue_of(*reasons: str) -> Any:
    jobs = [QueuedJob("12", "n", "COMPLETING", why, "main", "n1", 1, 0, 0, "") for why in reasons]
    return lambda ids, *, retries: jobs if (ids, retries) == (["12"], 1) else []


@pytest.mark.parametrize(
    ("reasons", "why"),
    [
        (["TimeLimit"], "its time limit"),
        (["None", "TimeLimit"], "its time limit"),
        (["None"], None),
        ([], None),
    ],
)
def test_slurm_tells_a_time_limit_from_a_cancellation(
    monkeypatch: pytest.MonkeyPatch, reasons: list[str], why: str | None
) -> None:
    monkeypatch.setattr("hpc.cluster.slurm.queue", queue_of(*reasons))
    ending = StopRequestedError("saved", reason="TERMINATE")
    assert time_limit_reason(ending, RequeuePolicy("scontrol", "12")) == why
    assert time_limit_reason(TransientError("x"), RequeuePolicy("scontrol", "12")) is None
    assert time_limit_reason(ending, RequeuePolicy("none", "12")) is None


def test_where_slurm_does_not_answer_a_told_job_stays_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def silent(ids: list[str], *, retries: int) -> list[QueuedJob]:
        raise TransientError("no answer")

    monkeypatch.setattr("hpc.cluster.slurm.queue", silent)
    ending = StopRequestedError("saved", reason="TERMINATE")
    assert time_limit_reason(ending, RequeuePolicy("scontrol", "12")) is None
    assert "no answer" in caplog.text


def test_a_watchdogs_last_word_leaves_the_asking_to_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    end_attempt(tmp_path, begin_attempt(tmp_path, 0), 3, 1, "no progress in 600 s", HANG)
    assert requeue_reason_after_kill(tmp_path) == "no progress in 600 s"
    end_attempt(tmp_path, begin_attempt(tmp_path, 3), 4, 1, "a failure")
    assert requeue_reason_after_kill(tmp_path) is None


def test_the_script_looks_at_its_own_newest_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    begin_attempt(tmp_path, 0, element=1)
    end_attempt(tmp_path, begin_attempt(tmp_path, 0, element=2), 5, 0, "done")
    assert requeue_reason_after_kill(tmp_path) is None, "the newest of this job has ended"
    begin_attempt(tmp_path, 5, element=2)
    assert requeue_reason_after_kill(tmp_path) == f"attempt 1 at {tmp_path} was killed"
    monkeypatch.delenv("SLURM_JOB_ID")
    assert requeue_reason_after_kill(tmp_path) is None


@pytest.mark.parametrize(
    ("states", "asked"), [(["RUNNING"], ["12"]), (["COMPLETING"], []), ([], [])]
)
def test_the_script_asks_for_a_running_job_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: Scheduler,
    states: list[str],
    asked: list[str],
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    jobs = [QueuedJob("12", "n", state, "None", "main", "n1", 1, 0, 0, "") for state in states]
    monkeypatch.setattr("hpc.cluster.slurm.queue", lambda ids: jobs)
    begin_attempt(tmp_path, 0)
    assert main([str(tmp_path)]) == 0
    assert scheduler.asked == asked


def test_the_script_ends_well_where_slurm_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def silent(ids: list[str]) -> list[QueuedJob]:
        raise TransientError("no answer")

    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr("hpc.cluster.slurm.queue", silent)
    begin_attempt(tmp_path, 0)
    assert main([str(tmp_path)]) == 0
    assert "not requeued: no answer" in caplog.text


def test_an_attempt_that_says_nothing_of_restarts_was_the_first_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    row = {"attempt": 0, "job": "12", "host": "n1", "pid": 1, "from": 0, "started": "t"}
    (tmp_path / "attempts.jsonl").write_text(json.dumps(row) + "\n")
    assert requeue_reason_after_kill(tmp_path) == f"attempt 0 at {tmp_path} was killed"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert requeue_reason_after_kill(tmp_path) is None


@pytest.mark.parametrize(("restart", "asked"), [("", True), ("49", True), ("50", False)])
def test_the_script_goes_by_slurms_count_where_the_attempts_cannot_be_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    restart: str,
    asked: bool,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    element_file(tmp_path, None).mkdir(parents=True)
    assert (requeue_reason_after_kill(tmp_path) is not None) is asked
    gone = tmp_path / "unmounted" / "run" / "tile"
    assert (requeue_reason_after_kill(gone) is not None) is asked
    assert ("12 has restarted 50 times" in caplog.text) is not asked


@pytest.mark.parametrize(
    ("recorded", "restart", "asked"),
    [(None, "", True), (None, "1", True), (None, "2", False), ("200", "202", True),
     ("200", "203", False)],
)  # fmt: skip
def test_three_starts_that_could_not_be_recorded_stop_the_job(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    recorded: str | None,
    restart: str,
    asked: bool,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    if recorded is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", recorded)
        end_attempt(tmp_path, begin_attempt(tmp_path, 0), 1, 0, "preempted", "PREEMPTED")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    refused = PermissionError(1, "Operation not permitted", str(tmp_path / "attempts"))
    assert (requeue_reason(refused, tmp_path) is not None) is asked
    ending = f"the last 3 starts of job 12 could not be recorded in {tmp_path}"
    assert (ending in caplog.text) is not asked


def test_the_script_of_a_second_array_finds_its_own_element(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(tmp_path / "run", "a: 1\n", "f00d")
    array = SubmittedJob("tile", "10", 50, None, "submit/0", "tile/logs", 1, 0, first=1000)
    publish_submission(
        run, SubmissionRecord(0, now(), "slurm", "mini", "f00d", (array,), "scontrol")
    )
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    begin_attempt(run.stage("tile"), 0, element=1007)
    why = requeue_reason_after_kill(run.stage("tile"))
    assert why == f"attempt 0 at {run.stage('tile')} was killed"


def test_an_attempt_that_was_refused_is_not_asked_for_by_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    withdraw_attempt(tmp_path / "tile", open_attempt(tmp_path / "tile"))
    assert requeue_reason_after_kill(tmp_path / "tile") is None
