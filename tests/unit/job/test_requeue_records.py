"""Which rows of attempts, and whose, decide on another start of a job that cannot be recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.errors import TransientError
from hpc.job.requeue import requeue_reason, requeue_reason_after_kill, stopped_for_good
from hpc.store.attempts import RESTART_LIMIT, begin_attempt, end_attempt

TRANSIENT = TransientError("the disk is away")


@pytest.fixture(autouse=True)
def _job(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the first start of job 12, no element of an array."""
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")


def recorded(directory: Path, monkeypatch: pytest.MonkeyPatch, job: str, restart: int) -> None:
    """An attempt of that start of a job, which made progress."""
    with monkeypatch.context() as its:
        its.setenv("SLURM_JOB_ID", job)
        its.setenv("SLURM_RESTART_COUNT", str(restart))
        end_attempt(directory, begin_attempt(directory, restart), restart + 1, 75, "away")


@pytest.mark.parametrize(("restart", "stays"), [(2, False), (3, True), (4, True)])
def test_three_starts_of_this_job_without_a_row_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: int, stays: bool
) -> None:
    recorded(tmp_path, monkeypatch, "12", 0)
    # Rows of another job say nothing of this one, and end rows name no job.
    recorded(tmp_path, monkeypatch, "11", 9)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    why = stopped_for_good(tmp_path, None)
    assert (why is not None) is stays
    assert (requeue_reason(TRANSIENT, tmp_path) is None) is stays
    if why is not None:
        assert why.startswith(f"the last {restart} starts of job 12 could not be recorded")
        assert f"`sarhpc resume {tmp_path.parent}`" in why


def test_a_job_none_of_whose_starts_has_a_row_is_let_go_at_its_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path, monkeypatch, "11", 5)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert stopped_for_good(tmp_path, None) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert "the last 3 starts of job 12" in str(stopped_for_good(tmp_path, None))
    monkeypatch.delenv("SLURM_JOB_ID")
    assert stopped_for_good(tmp_path, None) is None, "there is no job to start again"


@pytest.mark.parametrize(("restart", "stays"), [(RESTART_LIMIT - 1, False), (RESTART_LIMIT, True)])
def test_where_attempts_cannot_be_read_slurms_own_count_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: int, stays: bool
) -> None:
    (tmp_path / "attempts").write_text("no folder")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    assert (requeue_reason(TRANSIENT, tmp_path) is None) is stays
    why = stopped_for_good(tmp_path, None)
    assert (why is not None) is stays
    assert why is None or why.startswith(f"job 12 has restarted {restart} times")


@pytest.mark.parametrize("name", ["SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"])
def test_a_job_with_one_variable_of_an_array_is_no_element(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    begin_attempt(tmp_path, 0)
    monkeypatch.setenv(name, "3")
    assert requeue_reason_after_kill(tmp_path) == f"attempt 0 at {tmp_path} was killed"
