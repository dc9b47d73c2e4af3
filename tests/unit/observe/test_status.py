from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from queued_runs import STAGES, Slurm, over, queued, stand, states, submitted

from hpc.cluster.slurm import QueuedJob
from hpc.observe.queue import elements_of, is_stuck
from hpc.observe.state import last_row, stage_state
from hpc.observe.status import STALLED_S, run_status
from hpc.store.attempts import CRASH_LIMIT, begin_attempt, end_attempt
from hpc.store.rundir import RunDir, create_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def test_a_run_without_submissions_asks_nobody(run: RunDir) -> None:
    slurm = Slurm()
    assert states(run_status(run, STAGES, slurm)) == ["READY", "WAITING"]
    assert slurm.asked == []


def test_the_queue_is_asked_once_for_all_stages(run: RunDir) -> None:
    submitted(run, ("tile", "11"), ("train", "12"))
    slurm = Slurm([queued("11"), queued("12", "PENDING", "Dependency")])
    status = run_status(run, STAGES, slurm)
    assert states(status) == ["RUNNING", "PENDING"]
    assert status.stages[1].queue.reasons == ("Dependency",)
    assert slurm.asked == ["squeue"]


def test_a_complete_run_asks_nobody(run: RunDir) -> None:
    submitted(run, ("tile", "11"), ("train", "12"))
    stand(run, "tile", 2, 2)
    stand(run, "train", 1, 1)
    slurm = Slurm()
    status = run_status(run, STAGES, slurm)
    assert status.complete
    assert slurm.asked == []


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (queued("11", "PENDING", "Priority"), "PENDING"),
        (queued("11", "PENDING", "BeginTime", restarts=2), "REQUEUED"),
        (queued("11", "CONFIGURING", "None"), "PENDING"),
        (queued("11", "PENDING", "DependencyNeverSatisfied"), "BLOCKED"),
        (queued("11", "PENDING", "JobHeldAdmin"), "BLOCKED"),
        (queued("11", "RUNNING", elapsed_s=int(STALLED_S) + 1), "STALLED"),
        (queued("11", "COMPLETING"), "RUNNING"),
    ],
)
def test_states_of_a_job_in_the_queue(run: RunDir, row: QueuedJob, state: str) -> None:
    submitted(run, ("tile", "11"))
    assert states(run_status(run, STAGES, Slurm([row])))[0] == state


def test_a_waiting_successor_is_another_start(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    submitted(run, ("tile", "12"), number=1, successor=1)
    slurm = Slurm([queued("12", "PENDING", "Resources")])
    assert states(run_status(run, STAGES, slurm))[0] == "REQUEUED"


def test_a_stage_whose_work_is_silent_is_stalled(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    beat = run.stage("tile") / "heartbeat" / "r00000.json"
    beat.parent.mkdir(parents=True)
    lease = run.stage("tile") / ".lease.json"
    lease.write_text(json.dumps({"host": "n1", "pid": 1, "born": 0.0}))
    beat.write_text('{"seconds": 2.0}')
    slurm = Slurm([queued("11", elapsed_s=90_000)])
    assert states(run_status(run, STAGES, slurm))[0] == "RUNNING"
    os.utime(beat, (time.time() - 2 * STALLED_S,) * 2)
    status = run_status(run, STAGES, slurm)
    assert status.stages[0].state == "STALLED", "the lease is fresh, the work is not"
    assert "scancel 11" in str(status.stages[0].problem)
    beat.write_text(json.dumps({"seconds": STALLED_S}))
    os.utime(beat, (time.time() - 2 * STALLED_S,) * 2)
    assert states(run_status(run, STAGES, slurm))[0] == "RUNNING", "its shards take that long"


def test_the_heartbeat_of_a_dead_attempt_says_nothing_of_the_next(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    beat = run.stage("tile") / "heartbeat" / "r00000.json"
    beat.parent.mkdir(parents=True)
    beat.write_text("{}")
    os.utime(beat, (time.time() - 2 * STALLED_S,) * 2)
    begin_attempt(run.stage("tile"), 0)
    lease = run.stage("tile") / ".lease.json"
    lease.write_text(json.dumps({"host": "n1", "pid": 1, "born": 0.0}))
    assert states(run_status(run, STAGES, Slurm([queued("11")])))[0] == "RUNNING"


def test_how_a_job_ended_comes_from_accounting_when_the_disk_is_silent(run: RunDir) -> None:
    submitted(run, ("tile", "11"), ("train", "12"))
    slurm = Slurm(ended=[over("11", "FAILED", "0:53"), over("12", "FAILED", "5:0")])
    status = run_status(run, STAGES, slurm)
    assert states(status) == ["FAILED", "WAITING"]
    says = str(status.stages[0].problem)
    assert "job 11 ended FAILED with exit 0:53 (Slurm could not open its log)" in says
    assert f"sarhpc resume {run.root}" in says
    assert slurm.asked == ["squeue", "sacct"]


@pytest.mark.parametrize("state", ["PENDING", "FAILED"])
def test_a_folder_in_which_no_attempt_can_be_recorded_is_the_problem(
    run: RunDir, state: str
) -> None:
    submitted(run, ("tile", "11"))
    run.stage("tile").mkdir(exist_ok=True)
    (run.stage("tile") / "attempts").touch()
    waits = [queued("11", "PENDING", "BeginTime", restarts=2)] if state == "PENDING" else []
    found = run_status(run, STAGES, Slurm(waits, [over("11", "FAILED")])).stages[0]
    assert found.state == ("REQUEUED" if waits else "FAILED")
    assert "attempts is no writable folder, so no attempt can be recorded" in str(found.problem)


def test_the_newest_end_of_a_requeued_job_counts_even_if_it_never_started_again(
    run: RunDir,
) -> None:
    submitted(run, ("tile", "11"))
    ended = [
        over("11", "OUT_OF_MEMORY", "0:125", "2026-01-01T03:00:00"),
        over("11", "REQUEUED", "0:0", "2026-01-01T00:00:00"),
    ]
    says = run_status(run, STAGES, Slurm(ended=ended)).stages[0].problem
    assert "OUT_OF_MEMORY" in str(says)


def test_an_element_that_failed_makes_its_array_failed(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    ended = [over("11_0", "FAILED"), over("11_1", "COMPLETED", "0:0")]
    assert states(run_status(run, STAGES, Slurm(ended=ended)))[0] == "FAILED"


def test_a_job_gone_without_a_word_is_lost_where_nobody_accounts(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    status = run_status(run, STAGES, Slurm())
    assert states(status)[0] == "LOST"
    assert "job 11 is gone" in str(status.stages[0].problem)


def test_a_cancelled_or_stopped_job_leaves_the_stage_partial(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    stand(run, "tile", 3, 1)
    attempt = begin_attempt(run.stage("tile"), 0)
    end_attempt(run.stage("tile"), attempt, 1, 0, "stopped")
    for end in ("CANCELLED", "COMPLETED"):
        assert states(run_status(run, STAGES, Slurm(ended=[over("11", end, "0:0")])))[0] == (
            "PARTIAL"
        )


def test_trouble_on_disk_needs_no_accounting(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    attempt = begin_attempt(run.stage("tile"), 0)
    end_attempt(run.stage("tile"), attempt, 0, 3, "NumericalError: loss is nan")
    slurm = Slurm(ended=[over("11", "FAILED", "3:0")])
    status = run_status(run, STAGES, slurm)
    assert states(status)[0] == "FAILED"
    assert "loss is nan" in str(status.stages[0].problem)
    assert slurm.asked == ["squeue"]


def test_a_crash_loop_is_one_clear_line(run: RunDir) -> None:
    for _ in range(CRASH_LIMIT):
        end_attempt(run.stage("tile"), begin_attempt(run.stage("tile"), 0), 0, 1, "ImportError: x")
    status = run_status(run, STAGES)
    assert states(status)[0] == "FAILED"
    says = str(status.stages[0].problem)
    assert "3 attempts in a row made no progress" in says
    assert "ImportError: x" in says
    assert "--force" in says


def test_an_attempt_that_was_killed_is_lost_on_disk_alone(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc.observe.state.MAX_START_S", -1.0)
    begin_attempt(run.stage("tile"), 0)
    status = run_status(run, STAGES)
    assert states(status)[0] == "LOST"
    assert "sarhpc resume" in str(status.stages[0].problem)


def test_an_unreachable_queue_leaves_the_truth_of_the_disk(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    stand(run, "tile", 3, 1)
    slurm = Slurm(down=True)
    status = run_status(run, STAGES, slurm)
    assert states(status)[0] == "PARTIAL"
    assert "did not answer" in status.notes[0]
    assert slurm.asked == ["squeue"]


def test_elements_of_an_array_are_counted(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    rows = [queued("11_0"), queued("11_1", restarts=1), queued("11_[2-9%2]", "PENDING", "JobArray")]
    queue = run_status(run, STAGES, Slurm(rows)).stages[0].queue
    assert (queue.working, queue.waiting, queue.restarts, queue.jobs) == (2, 8, 1, ("11",))


@pytest.mark.parametrize(
    ("job", "elements"),
    [("7", 1), ("7_3", 1), ("7_[5-9]", 5), ("7_[0-4,9%2]", 6), ("7_[3]", 1), ("7_[1,3,...]", 2)],
)
def test_a_row_of_the_queue_stands_for_its_elements(job: str, elements: int) -> None:
    assert elements_of(job) == elements


@pytest.mark.parametrize(
    "reason", ["Priority", "Resources", "Dependency", "QOSMaxJobsPerUserLimit"]
)
def test_passing_reasons_do_not_block(reason: str) -> None:
    assert not is_stuck(reason)


def test_pace_and_time_left_come_from_the_live_attempt(run: RunDir) -> None:
    stand(run, "tile", 10, 5)
    attempt = {"attempt": 0, "from": 1, "host": "n1", "job": "1", "pid": 1}
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_000_000))
    (run.stage("tile") / "attempts.jsonl").write_text(json.dumps(attempt | {"started": since}))
    (run.stage("tile") / ".lease.json").write_text(
        json.dumps({"host": "n1", "pid": 1, "born": 0.0})
    )
    state = stage_state(run, STAGES[0], clock=1_000_008.0)
    assert state.per_s == pytest.approx(0.5)
    assert state.left_s == pytest.approx(10.0)


def test_the_row_being_written_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) is None
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert last_row(path) == {"step": 2}


def held_by(run: RunDir, job: str) -> None:
    """An attempt of a job on a node that has just died: its lease is a few seconds old."""
    begin_attempt(run.stage("tile"), 0)
    holder = {"host": "gone", "pid": 1, "born": 0.0, "job": job, "restart": 0}
    (run.stage("tile") / ".lease.json").write_text(json.dumps(holder))


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([], "LOST"),
        ([queued("11", "PENDING", "BeginTime", restarts=1)], "REQUEUED"),
        ([queued("11")], "RUNNING"),
        ([queued("10_3")], "LOST"),
    ],
)
def test_a_lease_of_a_job_that_has_left_its_node_is_not_running(
    run: RunDir, rows: list[QueuedJob], state: str
) -> None:
    submitted(run, ("tile", "11"))
    held_by(run, "11")
    assert stage_state(run, STAGES[0]).state == "RUNNING", "the disk alone cannot tell"
    status = run_status(run, STAGES, Slurm(rows))
    assert states(status)[0] == state
    if state == "LOST":
        assert "sarhpc resume" in str(status.stages[0].problem)
        assert status.to_json()["stages"][0]["holder"] is None


def test_a_stage_that_is_run_by_hand_inside_another_job_is_running(run: RunDir) -> None:
    submitted(run, ("tile", "11"))
    held_by(run, "99")
    assert states(run_status(run, STAGES, Slurm([queued("99")])))[0] == "RUNNING"
    assert states(run_status(run, STAGES, Slurm()))[0] == "LOST"
