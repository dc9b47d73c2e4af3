"""Submission with real processes: ranks, exit codes, logs, and no orphans."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ranked_works
from ranked_works import (
    AddUpRanks,
    EndWith,
    FailWhileOthersWait,
    KillYourself,
    MeetAfterRank1IsKilled,
    RaiseNumericalError,
    Sleep,
    TellEnvironment,
    WaitForStop,
)

import hpc.cluster.submit
from hpc.cluster.submit import Resources, Submission, submit
from hpc.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _works_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(ranked_works.__file__).parent))


def run(
    work: Callable[[], int], directory: Path, tasks: int = 1, executor: str = "local", gpus: int = 0
) -> Submission:
    resources = Resources(tasks_per_node=tasks, gpus_per_node=gpus)
    return submit(
        work, name="run-test", logs=directory / "logs", executor=executor, resources=resources
    )


def await_file(path: Path) -> str:
    until = time.monotonic() + 90
    while not path.exists() or not path.read_text():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.02)
    return path.read_text()


def dies(pid: int) -> bool:
    """Whether a process ends within a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            # A container's process 1 may be slow to reap: a zombie is dead.
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_local_task_is_told_its_rank(tmp_path: Path) -> None:
    submission = run(TellEnvironment(tmp_path), tmp_path, tasks=2)
    assert submission.wait() == 0
    assert submission.failure is None
    document = [read(tmp_path / f"told-{rank}.json") for rank in range(2)]
    assert [t["RANK"] for t in document] == ["0", "1"]
    assert [t["LOCAL_RANK"] for t in document] == ["0", "1"]
    assert {t["WORLD_SIZE"] for t in document} == {"2"}
    assert {t["MASTER_ADDR"] for t in document} == {"127.0.0.1"}
    assert len({t["MASTER_PORT"] for t in document}) == 1
    assert all(path.exists() for path in submission.stdout + submission.stderr)
    assert submission.job_id in submission.description
    assert str(submission.stderr[1]) in submission.description


def test_local_tasks_keep_the_devices_of_the_submitter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    assert run(TellEnvironment(tmp_path), tmp_path, tasks=2, gpus=2).wait() == 0
    document = [read(tmp_path / f"told-{rank}.json") for rank in range(2)]
    assert [t["CUDA_VISIBLE_DEVICES"] for t in document] == ["5,6", "5,6"]


def test_two_local_tasks_form_a_gloo_group(tmp_path: Path) -> None:
    submission = run(AddUpRanks(tmp_path), tmp_path, tasks=2)
    assert submission.wait() == 0, submission.failure
    for rank in range(2):
        assert read(tmp_path / f"sum-{rank}.json") == {"maximum": 11, "all": [0, 1]}


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_the_exit_code_of_the_work_comes_back(tmp_path: Path, executor: str) -> None:
    submission = run(EndWith(75), tmp_path, executor=executor)
    assert submission.wait() == 75
    assert submission.failure is not None
    assert "exit code 75" in submission.failure


def test_one_failed_rank_fails_the_job(tmp_path: Path) -> None:
    submission = run(EndWith(3, rank=1), tmp_path, tasks=2)
    assert submission.wait() == 3
    assert submission.failure is not None
    assert submission.failure.startswith("rank 1: exit code 3")


def test_ranks_do_not_wait_for_ever_for_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hpc.cluster.submit, "FAILURE_GRACE_S", 0.5)
    submission = run(FailWhileOthersWait(tmp_path), tmp_path, tasks=2)
    assert submission.wait() == 3
    assert submission.failure is not None
    assert submission.failure.startswith("rank 1")


def test_a_rank_that_is_killed_before_the_ranks_meet_ends_the_job_in_seconds(
    tmp_path: Path,
) -> None:
    submission = run(MeetAfterRank1IsKilled(tmp_path), tmp_path, tasks=2)
    pids = [int(await_file(tmp_path / f"pid-{rank}")) for rank in range(2)]
    # Rank 0 imports torch and is on its way to, or in, the rendezvous, which waits ten minutes.
    os.kill(pids[1], signal.SIGKILL)
    begin = time.monotonic()
    assert submission.wait() == 1
    assert time.monotonic() - begin < 30
    assert submission.failure is not None
    assert submission.failure.startswith("rank 1 ended without a result")
    assert all(map(dies, pids)), "processes were orphaned"


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_an_error_of_the_work_is_its_exit_code_and_its_words(tmp_path: Path, executor: str) -> None:
    submission = run(RaiseNumericalError(), tmp_path, executor=executor)
    assert submission.wait() == 3
    assert submission.failure is not None
    assert "NumericalError: loss is NaN at step 12" in submission.failure
    if executor == "local":
        log = submission.stderr[0].read_text()
        assert "about to diverge" in log
        assert log.count("NumericalError: loss is NaN at step 12") == 1
        assert "Traceback" not in log + submission.stdout[0].read_text()


def test_a_killed_task_is_a_failure_that_names_its_log(tmp_path: Path) -> None:
    submission = run(KillYourself(), tmp_path)
    assert submission.wait() == 1
    assert submission.failure is not None
    assert "rank 0 ended without a result" in submission.failure
    assert str(submission.stderr[0]) in submission.failure


def test_debug_runs_one_task_here_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = dict(os.environ)
    submission = run(TellEnvironment(tmp_path), tmp_path, tasks=4, executor="debug")
    assert submission.wait() == 0
    assert read(tmp_path / "told-0.json")["WORLD_SIZE"] == "1"
    assert "1 task in this process instead of 4" in caplog.text
    assert dict(os.environ) == before


def test_cancel_lets_the_work_save(tmp_path: Path) -> None:
    submission = run(WaitForStop(tmp_path), tmp_path)
    await_file(tmp_path / "pid-0")
    submission.cancel()
    assert submission.wait() == 0
    assert (tmp_path / "reason").read_text() == "TERMINATE"


def test_cancel_ends_work_that_does_not_listen(tmp_path: Path) -> None:
    submission = run(Sleep(tmp_path), tmp_path, tasks=2)
    pids = [int(await_file(tmp_path / f"pid-{rank}")) for rank in range(2)]
    submission.cancel()
    assert submission.wait() == 143
    assert all(map(dies, pids)), "processes were orphaned"


def test_cancel_ends_work_that_is_deaf_to_terminate(tmp_path: Path) -> None:
    submission = run(Sleep(tmp_path, deaf=True), tmp_path)
    pid = int(await_file(tmp_path / "pid-0"))
    submission.cancel(grace_s=0.2)
    assert submission.wait() != 0
    assert dies(pid), "the process was orphaned"


def test_tasks_end_when_their_controller_is_killed(tmp_path: Path) -> None:
    submission = run(Sleep(tmp_path), tmp_path, tasks=2)
    pids = [int(await_file(tmp_path / f"pid-{rank}")) for rank in range(2)]
    os.kill(int(submission.job_id), signal.SIGKILL)
    assert all(map(dies, pids)), "processes were orphaned"


def test_a_local_job_keeps_no_pipe_of_the_command_that_started_it(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    kept = os.dup(1)
    os.dup2(write_end, 1)
    try:
        submission = run(Sleep(tmp_path), tmp_path)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(write_end)
    try:
        await_file(tmp_path / "pid-0")
        ready, _, _ = select.select([read_end], [], [], 20)
        assert ready
        assert os.read(read_end, 100) == b"", "nobody writes there any more"
    finally:
        os.close(read_end)
        submission.cancel(grace_s=0.2)


def test_an_interrupted_wait_ends_the_local_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission = run(Sleep(tmp_path), tmp_path)
    pid = int(await_file(tmp_path / "pid-0"))

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            submission.wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert dies(pid), "the process was orphaned"


def test_work_that_cannot_travel_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="top level of a module"):
        run(lambda: 0, tmp_path)
    assert not (tmp_path / "logs").exists()


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not one of"):
        run(EndWith(0), tmp_path, executor="cloud")
    with pytest.raises(ConfigError, match="local, debug"):
        run(EndWith(0), tmp_path, executor="slurm")
    with pytest.raises(ConfigError, match="one node"):
        submit(EndWith(0), name="x", logs=tmp_path, executor="local", resources=Resources(nodes=2))
