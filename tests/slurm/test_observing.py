"""What status and report tell of jobs on a real Slurm, against Slurm's own records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain_runs import wait_for
from mini_slurm import MiniSlurm

from hpc.cluster import slurm
from hpc.job.pipeline import Stage
from hpc.observe.report import cost_report
from hpc.observe.status import RunStatus, run_status
from hpc.store.plan import make_plan
from hpc.store.rundir import RunDir, create_run, now
from hpc.store.submissions import SubmissionRecord, SubmittedJob, publish_submission

STAGES = [
    Stage(name, (), lambda _: make_plan("x", []), lambda _: None)
    for name in ("tile", "train", "generate")
]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


@pytest.fixture(autouse=True)
def _user(cluster: MiniSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is a user of the cluster; it counts its commands."""
    for name, gpu_seconds in cluster.env.items():
        monkeypatch.setenv(name, gpu_seconds)
    slurm.COUNTS.clear()
    yield
    slurm.COUNTS.clear()


def submitted(run: RunDir, **jobs: str) -> None:
    rows = tuple(
        SubmittedJob(stage, job, None, None, "s", "l", 1, 0) for stage, job in jobs.items()
    )
    publish_submission(run, SubmissionRecord(0, now(), "slurm", "mini", "token", rows))


def state_of(status: RunStatus, stage: str) -> str:
    return next(found.state for found in status.stages if found.disk.name == stage)


def test_one_look_tells_running_waiting_requeued_and_blocked(
    cluster: MiniSlurm, run: RunDir
) -> None:
    quiet = ("-o", "/dev/null")
    tile = cluster.submit(*quiet, "-N4", "--exclusive", "--wrap=sleep 600")
    train = cluster.submit(*quiet, "-N4", "--exclusive", f"--dependency=afterok:{tile}",
                           "--wrap=true")  # fmt: skip
    generate = cluster.submit(*quiet, "--array=0-49", f"--dependency=afterany:{train}",
                              "--wrap=true")  # fmt: skip
    submitted(run, tile=tile, train=train, generate=generate)
    cluster.wait_state(tile, "RUNNING")
    status = run_status(run, STAGES)
    assert [stage.state for stage in status.stages] == ["RUNNING", "PENDING", "PENDING"]
    assert status.stages[0].queue.nodes == "n[1-4]"
    assert status.stages[1].queue.reasons == ("Dependency",)
    assert status.stages[2].queue.waiting == 50
    assert slurm.COUNTS == {"squeue": 1}

    cluster.run("scontrol", "requeue", tile)
    wait_for(lambda: state_of(run_status(run, STAGES), "tile") == "REQUEUED", 20, "requeued")
    assert run_status(run, STAGES).stages[0].queue.restarts == 1

    # Accounting tells the starts of a job apart by whole seconds.
    time.sleep(2)
    cluster.run("scancel", tile)
    wait_for(lambda: state_of(run_status(run, STAGES), "train") == "BLOCKED", 60, "blocked")
    wait_for(lambda: state_of(run_status(run, STAGES), "tile") == "PARTIAL", 30, "accounted for")
    slurm.COUNTS.clear()
    status = run_status(run, STAGES)
    assert "ended CANCELLED" in str(status.stages[0].problem)
    assert "sarhpc resume" in str(status.stages[1].problem)
    assert slurm.COUNTS == {"squeue": 1, "sacct": 1}


def test_a_job_without_a_directory_for_its_log_is_explained(
    cluster: MiniSlurm, run: RunDir, tmp_path: Path
) -> None:
    job = cluster.submit("-o", str(tmp_path / "missing" / "%j.log"), "--wrap=true")
    submitted(run, tile=job)
    wait_for(lambda: state_of(run_status(run, STAGES), "tile") == "FAILED", 60, "failed")
    assert "Slurm could not open its log" in str(run_status(run, STAGES).stages[0].problem)


def test_status_without_the_controller_tells_the_disk_and_says_so(
    cluster: MiniSlurm, run: RunDir
) -> None:
    job = cluster.submit("-o", "/dev/null", "--wrap=sleep 600")
    submitted(run, tile=job)
    cluster.stop_controller()
    try:
        status = run_status(run, STAGES)
    finally:
        cluster.start_controller()
    assert state_of(status, "tile") == "READY"
    assert "no answer from the queue" in status.notes[0]
    assert state_of(run_status(run, STAGES), "tile") in ("RUNNING", "PENDING")


def test_gpu_hours_agree_with_accounting_over_every_start(cluster: MiniSlurm, run: RunDir) -> None:
    """A requeued job has several rows; each counts, with the GPUs it held."""
    job = cluster.submit("-o", "/dev/null", "-N2", "--gpus-per-node=2",
                         "--wrap=[ $SLURM_RESTART_COUNT ] && sleep 4 || sleep 600")  # fmt: skip
    other = cluster.submit("-o", "/dev/null", "--gpus-per-node=1", "--array=0-2", "--wrap=sleep 2")
    submitted(run, train=job, generate=other)
    cluster.wait_state(job, "RUNNING")
    time.sleep(4)
    cluster.run("scontrol", "requeue", job)
    cluster.wait_state(job)
    cluster.wait_state(other)
    rows = cluster.wait_records(job, ["REQUEUED", "COMPLETED"])
    wait_for(
        lambda: [r["State"] for r in cluster.records(other)] == ["COMPLETED"] * 3, 30, "records"
    )
    slurm.COUNTS.clear()
    report = cost_report(run, STAGES, {}, "generate")
    assert slurm.COUNTS == {"sacct": 1}
    gpu_seconds = sum(4 * int(row["ElapsedRaw"]) for row in rows)
    assert report.of("train").gpu_h == pytest.approx(gpu_seconds / 3600, rel=0.01)
    assert report.stages["train"]["requeued"].lost_gpu_h > 0, "it left nothing on disk"
    assert report.stages["train"]["completed"].lost_gpu_h == 0
    elements = sum(int(row["ElapsedRaw"]) for row in cluster.records(other))
    assert report.of("generate").gpu_h == pytest.approx(elements / 3600, rel=0.01)
    assert report.of("generate").starts == 3
