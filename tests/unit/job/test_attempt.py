"""An attempt lasts from before the lease to after the seal, so that every failure counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.errors import (
    CrashLoopError,
    DataError,
    HpcError,
    RunInUseError,
    TransientError,
    VerificationError,
)
from hpc.job.attempt import UpstreamOpenError, recorded_attempt
from hpc.job.pipeline import Stage, Work, run_stage
from hpc.job.requeue import requeue_reason, requeue_reason_after_kill
from hpc.job.stop import StopNow, StopReason
from hpc.observe.logs import failure_lines
from hpc.observe.state import stage_state
from hpc.store.attempts import (
    HANG,
    KILLED,
    Attempt,
    begin_attempt,
    end_attempt,
    read_attempts,
)
from hpc.store.lease import lease
from hpc.store.ledger import Record
from hpc.store.plan import Plan, make_plan
from hpc.store.rundir import RunDir, create_run, now


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def publish_all(work: Work) -> None:
    for task in work.todo():
        record = Record(task.id, work.plan.id, "/d", 1, 1, "a", work.attempt, "h", now(), now())
        work.ledger.publish(record)


def two_shards(run: RunDir) -> Plan:
    return make_plan("tile", [{}, {}])


def no_input(run: RunDir) -> Plan:
    raise DataError("scene 7 has\nno bands; fix the archive")


def fails(work: Work) -> None:
    raise HpcError("the catalogue cannot be written")


def stage(
    plan: Callable[[RunDir], Plan] = two_shards,
    finish: Callable[[Work], None] | None = None,
    needs: tuple[str, ...] = (),
) -> Stage:
    return Stage("tile", needs, plan, publish_all, finish)


def files(run: RunDir) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}


def unreadable_plan(run: RunDir) -> Stage:
    run.stage("tile").mkdir()
    run.plan_file("tile").write_text('{"schema": "torn')
    return stage()


def failing_seal(run: RunDir) -> Stage:
    return stage(finish=fails)


def failing_plan(run: RunDir) -> Stage:
    return stage(no_input)


def unusable_lease(run: RunDir) -> Stage:
    (run.stage("tile") / ".lease.json").mkdir(parents=True)
    return stage()


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (unreadable_plan, VerificationError),
        (failing_plan, DataError),
        (failing_seal, HpcError),
        (unusable_lease, IsADirectoryError),
    ],
)
def test_a_failure_around_the_work_counts_and_stops_the_run(
    run: RunDir, broken: Callable[[RunDir], Stage], error: type[Exception]
) -> None:
    tile = broken(run)
    directory = run.stage("tile")
    if error is HpcError:  # the first start makes the shards, which is progress
        with pytest.raises(HpcError):
            run_stage(run, tile)
    for _ in range(3):
        assert requeue_reason(OSError("x"), directory) is not None
        with pytest.raises(error):
            run_stage(run, tile)
    assert requeue_reason(OSError("x"), directory) is None, "it is not requeued any more"
    found = stage_state(run, tile)
    assert found.state == "FAILED"
    assert found.failure is not None
    assert "3 attempts in a row made no progress" in found.failure
    assert error.__name__ in found.failure
    assert "\n" not in found.failure
    assert failure_lines(run, tile) == [f"tile {found.failure}"]


def test_a_stage_that_breaks_while_planning_says_so_in_one_line(run: RunDir) -> None:
    with pytest.raises(DataError):
        run_stage(run, stage(no_input))
    reason = "attempt 0 exit=1: DataError: scene 7 has no bands; fix the archive"
    found = stage_state(run, stage())
    assert (found.state, found.failure) == ("FAILED", reason)
    assert failure_lines(run, stage()) == [f"tile {reason}"]


def test_a_kill_while_sealing_is_asked_for_again_and_never_running(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    pid = os.fork()
    if pid == 0:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 2)
        run_stage(run, stage(finish=lambda work: os.kill(os.getpid(), signal.SIGKILL)))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    directory = run.stage("tile")
    assert run.ledger("tile").missing(two_shards(run)) == []
    assert stage_state(run, stage()).state == "LOST"
    assert requeue_reason_after_kill(directory) == f"attempt 0 at {directory} was killed"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert "0 of 2 shards made now" in run_stage(run, stage())
    assert [row["exit"] for row in read_attempts(directory) if "to" in row] == [137, 0]


def test_a_start_on_a_sealed_stage_writes_nothing(run: RunDir) -> None:
    run_stage(run, stage())
    names = {path.name for path in run.stage("tile").iterdir()}
    assert names == {"attempts.jsonl", "manifest.jsonl", "plan.json"}
    before = files(run)
    assert "nothing to do" in run_stage(run, stage())
    assert files(run) == before


def test_a_compaction_that_a_kill_prevented_is_made_by_the_next_start(run: RunDir) -> None:
    run_stage(run, stage())
    late = begin_attempt(run.stage("tile"), 2)
    end_attempt(run.stage("tile"), late, 2, 0, "done")
    run_stage(run, stage())
    assert not (run.stage("tile") / "attempts").exists()
    assert [row["attempt"] for row in read_attempts(run.stage("tile"))] == [0, 0, 1, 1]


def test_a_start_that_waits_for_its_upstream_leaves_nothing(run: RunDir) -> None:
    before = set(files(run))
    with pytest.raises(UpstreamOpenError):
        run_stage(run, stage(needs=("simulate",)))
    assert set(files(run)) == before
    assert stage_state(run, stage(needs=("simulate",))).state == "WAITING"


def test_a_start_beside_a_living_process_does_not_count_and_does_not_disturb_it(
    run: RunDir,
) -> None:
    with lease(run.stage("tile") / ".lease.json"):
        begin_attempt(run.stage("tile"), 0)
        before = read_attempts(run.stage("tile"))
        code = (
            "import sys; from pathlib import Path; from hpc.errors import RunInUseError\n"
            "from hpc.job.attempt import recorded_attempt; from hpc.store.lease import lease\n"
            f"place = Path({str(run.stage('tile'))!r})\n"
            "try:\n"
            "  with recorded_attempt(place), lease(place / '.lease.json'): pass\n"
            "except RunInUseError: sys.exit(17)"
        )
        for _ in range(4):
            assert subprocess.run([sys.executable, "-c", code]).returncode == 17
        assert read_attempts(run.stage("tile")) == before


def test_a_stop_while_planning_is_no_failure(run: RunDir) -> None:
    def stopped(run: RunDir) -> Plan:
        raise StopNow(StopReason.PREEMPT)

    for _ in range(4):
        with pytest.raises(StopNow):
            run_stage(run, stage(stopped))
    ends = [row for row in read_attempts(run.stage("tile")) if "to" in row]
    assert [(row["exit"], row["stop"]) for row in ends] == [(0, "PREEMPT")] * 4
    assert stage_state(run, stage()).state == "PARTIAL"


def test_an_end_that_cannot_be_recorded_hides_no_failure(
    run: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    directory = run.stage("tile")
    with pytest.raises(VerificationError, match="the cause"), recorded_attempt(directory):
        for path in (directory / "attempts").iterdir():
            path.unlink()
        (directory / "attempts").rmdir()
        (directory / "attempts").write_text("")
        raise VerificationError("the cause")
    assert "the end of attempt 0 was not recorded" in caplog.text


def test_an_exhausted_budget_refuses_the_next_start_without_a_trace(run: RunDir) -> None:
    for _ in range(3):
        with pytest.raises(DataError):
            run_stage(run, stage(no_input))
    before = read_attempts(run.stage("tile"))
    with pytest.raises(CrashLoopError):
        run_stage(run, stage())
    assert read_attempts(run.stage("tile")) == before
    assert "2 of 2" in run_stage(run, stage(), force=True)


def test_in_use_is_told_by_the_first_process(run: RunDir) -> None:
    with lease(run.stage("tile") / ".lease.json"), pytest.raises(RunInUseError):
        run_stage(run, stage())
    assert read_attempts(run.stage("tile")) == []


def test_a_compaction_that_fails_fails_no_sealed_stage(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(directory: Path) -> None:
        raise TransientError("no space left")

    monkeypatch.setattr("hpc.job.attempt.compact_attempts", full)
    assert "sealed" in run_stage(run, stage())
    assert "nothing to do" in run_stage(run, stage())
    assert "were not compacted: no space left" in caplog.text
    monkeypatch.undo()
    run_stage(run, stage())
    assert not (run.stage("tile") / "attempts").exists()


def test_a_hang_stays_the_end_of_an_attempt_whose_ranks_are_then_terminated(run: RunDir) -> None:
    directory = run.stage("tile")
    with pytest.raises(SystemExit), recorded_attempt(directory) as attempt:
        rank_1 = Attempt(attempt.number, "12", "n2", 1)
        end_attempt(directory, rank_1, 0, 75, "hang: no progress for 600 s", HANG)
        raise SystemExit(143)
    [end] = [row for row in read_attempts(directory) if "to" in row]
    assert (end["exit"], end["stop"]) == (75, HANG)


def test_a_process_that_was_taken_over_leaves_the_end_that_was_written_for_it(run: RunDir) -> None:
    directory = run.stage("tile")
    with recorded_attempt(directory):
        begin_attempt(directory, 2)
    ends = [(row["attempt"], row["exit"]) for row in read_attempts(directory) if "to" in row]
    assert ends == [(0, KILLED)]
