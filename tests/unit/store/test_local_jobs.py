"""Records of the jobs of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hpc.store.local_jobs import live_local_jobs, newest_local_job, record_local_job
from hpc.store.rundir import RunDir


def test_a_copy_of_a_run_has_none_of_its_processes(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    (run.root / "logs").mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        record_local_job(run, process.pid, "line:simulate:evaluate")
        copy = RunDir(shutil.copytree(run.root, tmp_path / "copy"))
        assert [job.pid for job in live_local_jobs(run)] == [process.pid]
        assert live_local_jobs(copy) == []
        process.kill()
    assert os.listdir(run.root / "logs")


def test_the_newest_job_is_the_process_that_was_started_last(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (run.root / "logs").mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        record_local_job(run, process.pid, "tile")
        record_local_job(run, os.getpid(), "simulate")
        # As a stop does, which rewrites the record of a job that runs.
        os.utime(run.root / "logs" / f"job-{os.getpid()}.json")
        assert newest_local_job(run) == "tile"
        process.kill()


def test_a_record_nested_too_deep_is_none(tmp_path: Path) -> None:
    """In the run of another user, which `status` only reads."""
    run = RunDir(tmp_path)
    (run.root / "logs").mkdir()
    (run.root / "logs" / "job-1.json").write_text("[" * 100_000)
    assert live_local_jobs(run) == []
