"""Who comes back: decided from how the work ended and from the attempts so far."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from hpc.errors import (
    ConfigError,
    DataError,
    HpcError,
    IncompleteError,
    NumericalError,
    StopRequestedError,
    TransientError,
)
from hpc.job.requeue import (
    RequeuePolicy,
    main,
    requeue_before_deadline,
    requeue_reason,
    requeue_reason_after_kill,
    time_limit_reason,
)
from hpc.store.attempts import begin_attempt, end_attempt, read_attempts


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of a Slurm whose job 12 runs; what they were asked is in the file."""
    asked = tmp_path / "asked.txt"
    state = tmp_path / "state.txt"
    state.write_text("RUNNING")
    folder = tmp_path / "bin"
    folder.mkdir()
    squeue = (
        "import sys; from hpc.cluster.slurm_text import FIELD_END, QUEUE_FIELDS, ROW_END\n"
        f"state, _, reason = open({str(state)!r}).read().partition(' ')\n"
        "told = {'JobID': '12', 'JobArrayID': '12', 'State': state, 'Reason': reason}\n"
        "row = FIELD_END.join(told.get(name, '') for name in QUEUE_FIELDS)\n"
        "print(row + ROW_END, end='')"
    )
    python = f"#!{sys.executable}\n"
    for name, code in {
        "squeue": squeue,
        "scontrol": f"import sys; open({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')",
    }.items():
        script = folder / name
        script.write_text(python + code + "\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    return asked


@pytest.mark.parametrize(
    ("error", "comes"),
    [
        (StopRequestedError("saved", requeue=True, reason="PREEMPT"), True),
        (StopRequestedError("saved", requeue=False, reason="TERMINATE"), False),
        (TransientError("lost the connection to rank 3"), True),
        (HpcError("a worker died"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error"), True),
        (ConfigError("no such field"), False),
        (DataError("torn scene"), False),
        (NumericalError("the loss is nan"), False),
        (IncompleteError("2 shards failed"), False),
    ],
)
def test_only_what_may_end_better_comes_back(tmp_path: Path, error: Exception, comes: bool) -> None:
    assert (requeue_reason(error, tmp_path) is not None) == comes


def test_nothing_comes_back_from_a_crash_loop(tmp_path: Path) -> None:
    for _ in range(3):
        assert requeue_reason(HpcError("again"), tmp_path) is not None
        end_attempt(tmp_path, begin_attempt(tmp_path, 0), 0, 1, "HpcError: again")
    assert requeue_reason(HpcError("again"), tmp_path) is None


@pytest.mark.parametrize(
    ("mode", "job", "asked"),
    [("scontrol", "12", True), ("scontrol", None, False), ("chain", "12", False)],
)
def test_only_a_job_that_may_asks_for_itself(
    slurm: Path, mode: str, job: str | None, asked: bool
) -> None:
    RequeuePolicy(mode, job).request("preempted")
    assert slurm.exists() == asked
    if asked:
        assert slurm.read_text() == "requeue 12\n"


@pytest.mark.parametrize(
    ("reported", "mode", "reason", "comes"),
    [
        ("COMPLETING TimeLimit", "scontrol", "TERMINATE", True),
        ("COMPLETING None", "scontrol", "TERMINATE", False),  # as after scancel
        ("COMPLETING TimeLimit", "scontrol", "STOP_FILE", False),
        ("COMPLETING TimeLimit", "chain", "TERMINATE", False),
    ],
)
def test_a_job_told_to_end_comes_back_from_its_time_limit_only(
    slurm: Path, tmp_path: Path, reported: str, mode: str, reason: str, comes: bool
) -> None:
    (tmp_path / "state.txt").write_text(reported)
    error = StopRequestedError("saved", requeue=False, reason=reason)
    assert (time_limit_reason(error, RequeuePolicy(mode, "12")) is not None) == comes


def test_work_that_runs_into_its_end_is_queued_again_from_the_side(slurm: Path) -> None:
    with requeue_before_deadline(RequeuePolicy("scontrol", "12"), time.time() + 60):
        time.sleep(0.2)
    assert not slurm.exists()
    with requeue_before_deadline(RequeuePolicy("scontrol", "12"), time.time() + 0.1):
        until = time.monotonic() + 20
        while not slurm.exists() and time.monotonic() < until:
            time.sleep(0.05)
    assert slurm.read_text() == "requeue 12\n"


def test_work_that_is_about_to_give_up_for_good_is_not_queued_again_from_the_side(
    slurm: Path,
) -> None:
    asked = threading.Event()

    def loop() -> str:
        asked.set()
        return "3 attempts in a row made no progress"

    with requeue_before_deadline(RequeuePolicy("scontrol", "12"), time.time() - 1, loop):
        assert asked.wait(20)
        time.sleep(0.5)
    assert not slurm.exists()


def test_the_script_brings_back_a_job_whose_ranks_left_no_word(slurm: Path, tmp_path: Path) -> None:
    stage = tmp_path / "train"
    assert main([str(stage)]) == 0
    assert not slurm.exists(), "no attempt had begun"
    begin_attempt(stage, 0)
    assert main([str(stage)]) == 0
    assert slurm.read_text() == "requeue 12\n"


def test_the_script_brings_back_a_job_that_was_killed_before_its_attempt_but_not_for_ever(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = tmp_path / "train"
    assert main([str(stage), "1"]) == 0
    assert not slurm.exists(), "it was not killed, so another start would end the same way"
    assert main([str(stage), "137"]) == 0
    assert slurm.read_text() == "requeue 12\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert requeue_reason_after_kill(stage, 137) == "job 12 was killed before its attempt began"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert requeue_reason_after_kill(stage, 137) is None
    assert "killed before its attempt began, 3 times in a row" in caplog.text
    monkeypatch.setenv("SLURM_RESTART_COUNT", "7")
    begin_attempt(stage, 0)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "8")
    assert requeue_reason_after_kill(stage, 137) is not None, "it had begun to work in between"


def test_the_script_leaves_a_decided_or_cancelled_job_alone(slurm: Path, tmp_path: Path) -> None:
    decided = tmp_path / "decided"
    end_attempt(decided, begin_attempt(decided, 0), 0, 2, "ConfigError: no")
    main([str(decided)])
    cancelled = tmp_path / "cancelled"
    begin_attempt(cancelled, 0)
    (tmp_path / "state.txt").write_text("COMPLETING")
    main([str(cancelled)])
    assert not slurm.exists()


def test_a_transient_failure_is_requeued_by_the_script_if_rank_0_did_not_live_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a rank has failed, srun ends rank 0 too, which may be waiting for Slurm's answer."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    reason = "TransientError: rank 0 of 2 lost the connection"
    end_attempt(tmp_path, begin_attempt(tmp_path, 0), 10, TransientError.exit_code, reason)
    assert requeue_reason_after_kill(tmp_path) == reason
    end_attempt(tmp_path, begin_attempt(tmp_path, 10), 10, 2, "ConfigError: no")
    assert requeue_reason_after_kill(tmp_path) is None


def test_an_attempt_of_another_job_or_start_is_not_this_ones_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    begin_attempt(tmp_path, 0)
    assert requeue_reason_after_kill(tmp_path) is not None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert requeue_reason_after_kill(tmp_path) is None
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert requeue_reason_after_kill(tmp_path) is None


def test_six_kills_are_not_brought_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    for _ in range(5):
        begin_attempt(tmp_path, 0)
        assert requeue_reason_after_kill(tmp_path) is not None
    begin_attempt(tmp_path, 0)
    assert requeue_reason_after_kill(tmp_path) is None
    rows = read_attempts(tmp_path)
    assert [row["exit"] for row in rows if "exit" in row] == [137] * 5
