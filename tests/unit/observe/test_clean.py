from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpc.cluster.slurm import AccountedJob, QueuedJob, SlurmUnavailableError
from hpc.job.pipeline import Stage
from hpc.observe.clean import Removable, find_removable, removable_lines, remove_files, size_text
from hpc.observe.status import run_status
from hpc.store.lease import lease
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, create_run, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission

STAGES = [Stage("train", (), lambda _: make_plan("train", []), lambda _: None)]


class Queue:
    """A cluster with given waiting jobs, or none that answers."""

    def __init__(self, *waiting: str, down: bool = False) -> None:
        self.waiting, self.down = waiting, down

    def queue(self, ids: Sequence[str] | None = None, *, retries: int = 1) -> list[QueuedJob]:
        if self.down:
            raise SlurmUnavailableError("no answer")
        return [
            QueuedJob(job, "x", "PENDING", "Priority", "main", "", None, None, 0, "")
            for job in self.waiting
        ]

    def accounting(self, ids: Sequence[str], since: str) -> list[AccountedJob]:
        return []


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = create_run(tmp_path / "run", "a: 1\n", "f00d")
    for name in ("step_00000100", "step_00000200", ".staging-00000300-1", "step_00000050.bad"):
        weights = run.stage("train") / "checkpoints" / name / "weights"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"12345")
    logs = run.logs("train")
    logs.mkdir()
    for name in ("7_submitted.pkl", "7_0_result.pkl", "7_0_log.err"):
        (logs / name).write_text("x")
        os.utime(logs / name, (0, 0))
    (run.root / "data").mkdir()
    return run


def seal(run: RunDir, recorded: str = "checkpoints/step_00000200") -> None:
    plan = make_plan("train", [{}])
    publish_plan(plan, run.plan_file("train"))
    path = str(run.stage("train") / recorded)
    run.ledger("train").publish(Record("000000", plan.id, path, 0, 5, "a", 0, "h", now(), now()))
    run.ledger("train").seal(plan)


def found(run: RunDir, queue: Queue | None = None) -> set[str]:
    status = run_status(run, STAGES, queue)
    return {piece.path.name for piece in find_removable(status, STAGES, run.root / "data")}


def test_an_unfinished_training_keeps_every_checkpoint_and_every_log(run: RunDir) -> None:
    assert found(run) == {".staging-00000300-1", "7_submitted.pkl", "7_0_result.pkl"}


def test_a_finished_training_keeps_the_recorded_checkpoint(run: RunDir) -> None:
    seal(run)
    names = found(run)
    assert {"step_00000100", "step_00000050.bad", ".staging-00000300-1"} <= names
    assert "step_00000200" not in names


def test_checkpoints_stay_when_the_recorded_one_is_gone(run: RunDir) -> None:
    seal(run)
    (run.stage("train") / "checkpoints" / "step_00000200").rename(run.root / "moved")
    assert not {name for name in found(run) if name.startswith("step_")}


def test_no_checkpoint_is_needed_where_a_model_is_on_record(run: RunDir) -> None:
    seal(run, "model")
    assert not {name for name in found(run) if name.startswith("step_")}, "the model is not there"
    (run.stage("train") / "model").mkdir()
    assert {"step_00000100", "step_00000200", "step_00000050.bad"} <= found(run)
    assert "model" not in found(run)


def test_a_stage_at_work_is_left_alone(run: RunDir) -> None:
    with lease(run.stage("train") / ".lease.json"):
        assert found(run) == set()


def test_what_waiting_jobs_need_is_kept(run: RunDir) -> None:
    job = SubmittedJob("train", "7", None, None, "s", "l", 1, 0)
    publish_submission(run, SubmissionRecord(0, now(), "slurm", "p", "t", (job,)))
    assert found(run, Queue("7")) == set()
    assert "7_submitted.pkl" not in found(run, Queue(down=True)), "nobody knows who waits"
    assert "7_submitted.pkl" in found(run, Queue())


def test_what_a_job_about_to_start_needs_is_kept(run: RunDir) -> None:
    os.utime(run.logs("train") / "7_submitted.pkl")
    assert "7_submitted.pkl" not in found(run)


def test_writers_litter_among_the_data_goes_when_old(run: RunDir) -> None:
    old, young = (run.root / "data" / "tiles" / "train" / f".{n}.tar.h.1.0.tmp" for n in (1, 2))
    old.parent.mkdir(parents=True)
    for path in (old, young):
        path.write_bytes(b"torn")
    os.utime(old, (0, 0))
    assert {name for name in found(run) if name.endswith(".tmp")} == {old.name}


def test_what_is_removed_is_noted_first(run: RunDir) -> None:
    seal(run)
    removable = find_removable(run_status(run, STAGES), STAGES, run.root / "data")
    remove_files(run, removable)
    rows = [json.loads(line) for line in (run.root / "cleaned.jsonl").read_text().splitlines()]
    assert {row["path"] for row in rows} == {str(piece.path) for piece in removable}
    assert found(run) == set()
    left = {path.name for path in (run.stage("train") / "checkpoints").iterdir()}
    assert left == {"step_00000200"}
    assert (run.logs("train") / "7_0_log.err").exists()


def test_many_small_pieces_are_one_line(tmp_path: Path) -> None:
    pieces = [Removable(tmp_path / f"{n}_result.pkl", 20, 1, "old") for n in range(5000)]
    pieces.append(Removable(tmp_path / "step_1", 10**9, 40, "superfluous"))
    lines = removable_lines(pieces)
    assert len(lines) == 2
    assert lines[0].startswith("    1 GB")
    assert "0_result.pkl, 1_result.pkl and 4998 more (old)" in lines[1]


@pytest.mark.parametrize(
    ("number", "text"), [(812, "812 B"), (3_400_000, "3.4 MB"), (1_200_000_000_000, "1.2 TB")]
)
def test_sizes_read_well(number: int, text: str) -> None:
    assert size_text(number) == text
