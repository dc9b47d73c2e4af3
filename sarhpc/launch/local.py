"""Jobs of this machine, through submitit: one stage, or a driver that takes stages in order."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import RunInUseError
from hpc.job.pipeline import Stage
from hpc.observe.logs import LogFollower, failure_cause
from hpc.store.local_jobs import live_local_jobs, record_local_job
from hpc.store.rundir import RunDir
from sarhpc.launch.line import LineWork, submit_stage

if TYPE_CHECKING:
    from hpc.cluster.submit import Submission

POLL_S = 0.5


def launch_stage(
    run: RunDir, stage: Stage, executor: str, *, wait: bool, force: bool = False
) -> int:
    """Submit a stage and print where to look; its exit code if `wait`, else 0."""
    submission = submit_stage(run, stage, executor, force=force)
    _record(run, submission, stage.name)
    return _announce(run, submission, stage.name, executor, [stage], wait=wait)


def launch_line(
    run: RunDir, stages: Sequence[Stage], executor: str, *, wait: bool, force: bool = False
) -> int:
    """Submit a driver of `stages` and print where to look; its exit code if `wait`, else 0.

    A driver that works already is left alone; one that received a stop is waited for by the new
    one.

    Raises:
        RunInUseError: with `wait`, another driver works on the run.
    """
    drivers = [job for job in live_local_jobs(run) if job.what.startswith("line:")]
    if working := [job for job in drivers if not job.stopped]:
        text = f"{run.root} is worked on by process {working[0].pid} on {working[0].host}"
        if wait:
            raise RunInUseError(f"{text}; see `sarhpc status {run.root}`")
        print(f"nothing to start: {text}; see its progress with: sarhpc status {run.root}")
        return 0
    behind = tuple(job.pid for job in drivers)
    submission, name = start_driver(run, stages, executor, force=force, behind=behind)
    return _announce(run, submission, name, executor, stages, wait=wait)


def start_driver(
    run: RunDir,
    stages: Sequence[Stage],
    executor: str,
    *,
    force: bool = False,
    behind: tuple[int, ...] = (),
) -> tuple[Submission, str]:
    """The job of a driver of `stages` and its name, after the drivers of `behind` have ended."""
    from hpc.cluster.submit import Resources, submit

    work = LineWork(str(run.root), stages[0].name, stages[-1].name, executor, force, behind)
    submission = submit(
        work,
        name=f"{run.name}-line",
        logs=run.root / "logs",
        executor=executor,
        # One task that mostly waits.
        resources=Resources(time_min=24 * 60),
    )
    _record(run, submission, work.name)
    return submission, work.name


def _record(run: RunDir, submission: Submission, what: str) -> None:
    if submission.executor == "local":
        record_local_job(run, int(submission.job_id), what)


def _announce(
    run: RunDir,
    submission: Submission,
    what: str,
    executor: str,
    stages: Sequence[Stage],
    *,
    wait: bool,
) -> int:
    print(f"job {submission.job_id} ({what}) by the {executor} executor")
    for path in submission.stderr:
        print(f"  log     {path}")
    print(f"  status  sarhpc status {run.root}")
    print(f"  stop    sarhpc stop {run.root}", flush=True)
    # A debug job runs inside `wait`, in this process.
    if not wait and executor != "debug":
        return 0
    code = _follow(submission)
    if code != 0 and (cause := failure_cause(run, stages)) is not None:
        print(f"failed: {cause}", file=sys.stderr)
    return code


def _follow(submission: Submission) -> int:
    """Copy the job's log to standard error until the job ends; its exit code."""
    ended = threading.Event()
    thread = threading.Thread(target=_copy, args=(submission.stderr, ended), daemon=True)
    thread.start()
    code = submission.wait()
    ended.set()
    thread.join(timeout=5)
    if submission.failure:
        print(submission.failure, file=sys.stderr)
    return code


def _copy(paths: tuple[Path, ...], ended: threading.Event) -> None:
    follower, last = LogFollower(), False
    while not last:
        last = ended.is_set()
        follower.copy(paths, sys.stderr)
        time.sleep(POLL_S)
