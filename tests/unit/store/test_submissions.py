"""Submissions: published once, and every shard in exactly one stripe."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpc.errors import HpcError, TransientError, VerificationError
from hpc.store.rundir import RunDir
from hpc.store.submissions import (
    SubmissionRecord,
    SubmittedJob,
    await_submission,
    element_number,
    job_ids,
    next_number,
    publish_submission,
    read_submission,
    read_submissions,
    record_stopped_jobs,
    stopped_jobs,
    stripe,
    submission_lease,
    submitted_stages,
)


def job(stage: str, job_id: str, elements: int | None = None, first: int = 0) -> SubmittedJob:
    return SubmittedJob(stage, job_id, elements, None, "x.sbatch", "x.log", 1, 0, first)


def record(number: int, *jobs: SubmittedJob, **more: object) -> SubmissionRecord:
    return SubmissionRecord(
        number, "2026-01-01T00:00:00Z", "slurm", "site", "abcd", jobs, **more  # type: ignore[arg-type]
    )  # fmt: skip


def test_what_is_published_is_read_back_in_order(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert next_number(run) == 0
    records = [record(0, job("tile", "7")), record(1, job("train", "8"), shards={"g": ("000001",)})]
    for one in records:
        publish_submission(run, one)
    assert read_submissions(run) == records
    assert read_submission(run, 1) == records[1]
    assert next_number(run) == 2
    assert set(job_ids(run)) == {"7", "8"}


def test_numbers_above_999_stay_in_order(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for number in (999, 1000, 2):
        publish_submission(run, record(number))
    assert [one.number for one in read_submissions(run)] == [2, 999, 1000]


def test_a_submission_is_never_rewritten(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    first = record(0, job("tile", "7"))
    publish_submission(run, first)
    publish_submission(run, first)
    with pytest.raises(HpcError, match="never rewritten"):
        publish_submission(run, dataclasses.replace(first, token="other"))
    assert read_submissions(run) == [first]


def test_every_frozen_shard_is_in_exactly_one_stripe() -> None:
    ids = tuple(f"{n:06d}" for n in range(3, 26))
    arrays = [job("generate", "7", 4), job("generate", "8", 3, first=4)]
    submission = record(0, *arrays, shards={"generate": ids})
    assert submission.elements("generate") == 7
    stripes = [stripe(submission, "generate", element) for element in range(7)]
    assert sorted(shard for shards in stripes for shard in shards) == list(ids)
    assert max(map(len, stripes)) - min(map(len, stripes)) <= 1
    with pytest.raises(HpcError, match="no element 7"):
        stripe(submission, "generate", 7)


def test_an_array_submitted_before_its_plan_divides_the_plan() -> None:
    submission = record(0, job("generate", "7", 2))
    assert stripe(submission, "generate", 1, ["000000", "000001", "000002"]) == ["000001"]


def test_successors_of_an_array_divide_as_their_predecessor() -> None:
    first = job("generate", "7", 2)
    submission = record(0, first, dataclasses.replace(first, job_id="8", successor=1))
    assert submission.elements("generate") == 2


def test_a_file_that_is_no_submission_is_named(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "000.json").write_text('{"schema": "other"}')
    with pytest.raises(VerificationError, match=r"000\.json"):
        read_submissions(run)
    with pytest.raises(VerificationError, match="no submission"):
        read_submission(run, 5)


def test_a_job_that_starts_early_waits_for_its_submission(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    late = threading.Timer(0.3, publish_submission, [run, record(0, job("generate", "7", 2))])
    late.start()
    assert await_submission(run, 0, timeout_s=30).of("generate")
    with pytest.raises(TransientError, match="resume"):
        await_submission(run, 1, timeout_s=0.0)


def test_an_element_knows_its_number_in_the_stage() -> None:
    submission = record(0, job("generate", "7", 4), job("generate", "9", 3, first=4))
    assert element_number(submission, "9", 2) == 6
    with pytest.raises(HpcError, match="no array 8"):
        element_number(submission, "8", 0)


def test_a_job_waits_for_its_submission_as_long_as_the_submitting_command_lives(
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from hpc.store.lease import lease\n"
        "with lease(Path(sys.argv[1])): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(submission_lease(run))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as submitter:
        assert submitter.stdout is not None
        assert submitter.stdout.readline() == "held\n"
        later = threading.Timer(2.0, publish_submission, (run, record(0, job("tile", "7"))))
        later.start()
        assert await_submission(run, 0, timeout_s=0.2).jobs[0].job_id == "7"
        submitter.kill()
    with pytest.raises(TransientError, match="no command submits for this run; the one that did"):
        await_submission(run, 1, timeout_s=0.2)


def test_a_file_without_refused_stages_is_written_as_before(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    whole, partial = record(0, job("tile", "7")), record(1, job("tile", "8"), refused=("train",))
    paths = [publish_submission(run, one) for one in (whole, partial)]
    assert ["refused" in json.loads(path.read_text()) for path in paths] == [False, True]
    assert read_submissions(run) == [whole, partial]
    assert submitted_stages(run) == {"tile", "train"}


def test_stopped_jobs_are_added_up(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert stopped_jobs(run) == frozenset()
    record_stopped_jobs(run, ["7", "8_1"])
    record_stopped_jobs(run, ["9"])
    assert stopped_jobs(run) == {"7", "8_1", "9"}
    assert read_submissions(run) == []
