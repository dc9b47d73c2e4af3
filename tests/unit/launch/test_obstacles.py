"""Which lost stages a supervisor leaves to a person."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.store.attempts import begin_attempt, end_attempt
from hpc.store.ledger import Failure, Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission
from hpc.store.supervision import (
    RESUBMISSION_LIMIT,
    read_resubmissions,
    record_resubmission,
    supervision_file,
)
from sarhpc.launch.obstacles import obstacle
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return tiny_run(tmp_path / "run", tmp_path / "model")


def why(run: RunDir, stage: str = "simulate", *, only_lost: bool = False) -> str | None:
    return obstacle(run, stage_named(load_run_config(run), stage), only_lost=only_lost)


def attempt(run: RunDir, stage: str, code: int | None, reason: str = "", to: int = 0) -> None:
    begun = begin_attempt(run.stage(stage), 0)
    if code is not None:
        end_attempt(run.stage(stage), begun, to, code, reason)


def submitted(run: RunDir, number: int, stage: str, time: str) -> None:
    job = SubmittedJob(stage, f"{number}", None, None, "x", "y", 1, 0)
    publish_submission(run, SubmissionRecord(number, time, "slurm", "mini", "ab", (job,)))


@pytest.mark.parametrize("code", [None, 137])
def test_a_killed_attempt_is_submitted_again(run: RunDir, code: int | None) -> None:
    attempt(run, "simulate", code, "killed")
    assert why(run) is None
    assert why(run, only_lost=True) is None


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (2, "ConfigError"),
        (3, "NumericalError"),
        (4, "VerificationError"),
        (1, "DataError"),
        (1, "GpuMemoryError"),
    ],
)
def test_a_failure_that_would_repeat_is_left_to_a_person(run: RunDir, code: int, name: str) -> None:
    attempt(run, "simulate", code, f"{name}: no such file")
    found = why(run)
    assert found is not None
    assert f"{name}: no such file; fix the cause, then `sarhpc resume {run.root}`" in found


def test_a_failure_of_the_machine_is_tried_again_unless_only_lost_work_counts(run: RunDir) -> None:
    attempt(run, "simulate", 1, "RuntimeError: device lost")
    assert why(run) is None
    assert "device lost" in str(why(run, only_lost=True))


def test_a_crash_loop_is_left_to_a_person(run: RunDir) -> None:
    for _ in range(3):
        attempt(run, "simulate", 1, "RuntimeError: device lost")
    assert "made no progress" in str(why(run))


def test_time_limits_without_progress_are_a_crash_loop(run: RunDir) -> None:
    for _ in range(3):
        begun = begin_attempt(run.stage("simulate"), 0)
        end_attempt(run.stage("simulate"), begun, 0, 0, "stopped", "DEADLINE")
    assert why(run) is not None


def test_a_failure_before_the_last_submission_does_not_count(run: RunDir) -> None:
    attempt(run, "simulate", 2, "ConfigError: bad")
    submitted(run, 0, "simulate", "2999-01-01T00:00:00Z")
    assert why(run) is None


def test_a_stage_whose_input_is_missing_is_not_judged_by_its_past(run: RunDir) -> None:
    attempt(run, "tile", 5, "IncompleteError: tile needs simulate, which is not sealed")
    assert why(run, "tile", only_lost=True) is None
    run.ledger("simulate").seal(make_plan("simulate", []))
    assert why(run, "tile", only_lost=True) is not None


def test_resubmissions_without_progress_are_limited_until_a_person_submits(run: RunDir) -> None:
    for number in range(RESUBMISSION_LIMIT):
        assert why(run) is None
        submitted(run, number, "simulate", "2026-01-01T00:00:00Z")
        record_resubmission(run, "simulate", 0, "killed", (str(number),), number)
    assert f"submitted again {RESUBMISSION_LIMIT} times without progress" in str(why(run))
    submitted(run, RESUBMISSION_LIMIT, "simulate", "2026-01-01T00:00:00Z")
    assert why(run) is None


def test_progress_between_resubmissions_starts_the_count_anew(run: RunDir) -> None:
    for number in range(RESUBMISSION_LIMIT):
        record_resubmission(run, "simulate", number % 2, "killed", (str(number),), None)
    assert why(run) is None


def test_a_truncated_line_of_the_journal_is_skipped(run: RunDir) -> None:
    record_resubmission(run, "simulate", 0, "killed", ("1",), 0)
    with supervision_file(run).open("a") as file:
        file.write('\n{"stage": "sim')
    record_resubmission(run, "simulate", 1, "killed", ("2",), 1)
    assert [row.jobs for row in read_resubmissions(run)] == [("1",), ("2",)]


@pytest.mark.parametrize(
    ("errors", "left"),
    [(["DataError", "GpuMemoryError"], True), (["DataError", "TransientError"], False),
     (["DataError", None], False)],
)  # fmt: skip
def test_shards_that_would_all_fail_again_are_left_to_a_person(
    run: RunDir, errors: list[str | None], left: bool
) -> None:
    plan = make_plan("simulate", [{"n": n} for n in range(3)])
    publish_plan(plan, run.plan_file("simulate"))
    first, *others = plan.shards
    ledger = run.ledger("simulate")
    ledger.publish(Record(first.id, plan.id, "/d", 1, 9, "aa", 0, "n1", now(), now()))
    attempt(run, "simulate", 5, "IncompleteError: 2 of 3 shards are not done", to=1)
    for task, error in zip(others, errors, strict=True):
        if error is not None:
            ledger.fail(Failure(task.id, plan.id, 0, 1, error, "no model", now()))
    found = why(run)
    assert (found is not None) is left
    if found is not None:
        assert (
            "all 2 shards that are missing failed, the first 000001: DataError: no model" in found
        )
    # A person submitted it since: whatever ended that job is no verdict on the shards.
    submitted(run, 0, "simulate", "2999-01-01T00:00:00Z")
    assert why(run) is None


def test_a_stage_whose_attempts_cannot_be_recorded_is_left_to_a_person(run: RunDir) -> None:
    run.stage("simulate").mkdir()
    assert why(run) is None
    # The superuser may write to any folder, but this is none.
    (run.stage("simulate") / "attempts").touch()
    found = why(run, only_lost=True)
    assert found is not None
    assert f"{run.stage('simulate') / 'attempts'} is no writable folder" in found
    assert f"`sarhpc resume {run.root}`" in found
