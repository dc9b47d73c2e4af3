"""Every start of a job counts, whatever ends it, and a stage that goes on failing is let go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, queued
from line_runs import tiny_run

from hpc.observe.state import stage_state
from hpc.store.attempts import RESTART_LIMIT, read_attempts
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission, stripe
from sarhpc.launch.job import _owners, _queued_elements, work
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

REQUEUE = ["scontrol", "requeue", "12"]


def submission(*jobs: SubmittedJob, **more: dict[str, tuple[str, ...]]) -> SubmissionRecord:
    return SubmissionRecord(0, now(), "slurm", "mini", "f00d", jobs, "scontrol", **more)


@pytest.fixture
def run(fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose simulation is job 12 on this node."""
    fake_slurm.change(jobs=[queued("12")], nodes=[{"N": "n1", "T": "idle", "E": "none"}])
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    run = tiny_run(tmp_path / "run", tmp_path / "model")
    job = SubmittedJob("simulate", "12", None, None, "submit/0", "simulate/logs", 1, 0)
    publish_submission(run, submission(job))
    return run


def start(run: RunDir, restart: int) -> int:
    os.environ["SLURM_RESTART_COUNT"] = str(restart)
    return work(str(run.root), "simulate", submission=0)


@pytest.fixture(autouse=True)
def _restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")


def test_a_configuration_that_cannot_be_read_any_more_ends_after_three_starts(
    fake_slurm: FakeSlurm, run: RunDir
) -> None:
    text = run.config_file.read_text()
    simulate = stage_named(load_run_config(run), "simulate")
    run.config_file.unlink()
    run.config_file.mkdir()
    assert [start(run, n) for n in range(3)] == [0, 0, 1]
    assert fake_slurm.calls("scontrol").count(REQUEUE) == 2
    run.config_file.rmdir()
    run.config_file.write_text(text)
    found = stage_state(run, simulate)
    assert found.state == "FAILED"
    assert "3 attempts in a row made no progress" in str(found.failure)
    assert "IsADirectoryError" in str(found.failure)


@pytest.mark.parametrize(("restart", "comes"), [(0, True), (49, True), (RESTART_LIMIT, False)])
def test_where_no_attempt_can_be_recorded_the_count_of_slurm_serves(
    fake_slurm: FakeSlurm,
    run: RunDir,
    caplog: pytest.LogCaptureFixture,
    restart: int,
    comes: bool,
) -> None:
    run.stage("simulate").mkdir(exist_ok=True)
    (run.stage("simulate") / "attempts").write_text("not a folder")
    assert (start(run, restart) == 0) is comes
    assert (REQUEUE in fake_slurm.calls("scontrol")) is comes


def test_a_start_on_a_sealed_stage_leaves_the_run_as_it_is(run: RunDir) -> None:
    plan = make_plan("simulate", [])
    run.ledger("simulate").seal(plan)
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    assert start(run, 0) == 0
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*")} == before


def test_the_stage_behind_an_open_one_is_no_failure_of_its_own(run: RunDir) -> None:
    assert work(str(run.root), "tile", submission=0) == 5
    assert read_attempts(run.stage("tile")) == []


def test_a_stage_that_lacks_only_its_seal_is_sealed_by_the_next_job_of_the_chain(
    run: RunDir,
) -> None:
    """Its batch script was killed with its tasks, so nobody asked for it again."""
    plan = make_plan("simulate", [{}])
    publish_plan(plan, run.plan_file("simulate"))
    assert work(str(run.root), "tile", submission=0) == 5
    record = Record("000000", plan.id, "/d", 1, 1, "a", 0, "h", now(), now())
    run.ledger("simulate").publish(record)
    work(str(run.root), "tile", submission=0)
    simulate = stage_named(load_run_config(run), "simulate")
    assert stage_state(run, simulate).state == "COMPLETE"
    [end] = [row for row in read_attempts(run.stage("simulate")) if "to" in row]
    assert (end["exit"], end["reason"]) == (0, "done")


def test_shards_have_the_owners_that_made_them_and_the_queue_tells_who_comes(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    arrays = [
        SubmittedJob("tile", "20", 4, None, "submit/0", "tile/logs", 1, 0),
        SubmittedJob("tile", "21", 2, None, "submit/1", "tile/logs", 1, 0, first=4),
    ]
    plan = make_plan("tile", [{}] * 15)
    ids = [shard.id for shard in plan.shards]
    for record in (submission(*arrays), submission(*arrays, shards={"tile": tuple(ids[3:])})):
        found = _owners(record, "tile", plan)
        for element in range(6):
            mine = [shard for shard, owner in found.items() if owner == element]
            assert mine == stripe(record, "tile", element, ids)
    fake_slurm.change(
        jobs=[
            queued("20_1"),
            queued("20_3", "PENDING"),
            queued("21_0", "PENDING", Reason="job requeued in held state"),
            queued("21_1", "COMPLETING"),
            queued("99_0"),
        ]
    )
    states = _queued_elements(submission(*arrays), "tile")
    assert states == {1: "RUNNING", 3: "PENDING", 5: "COMPLETING"}
