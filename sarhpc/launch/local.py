"""Jobs of this machine, through submitit: one stage, or a driver that takes stages in order."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.job.pipeline import Stage
from hpc.observe.logs import LogFollower, failure_cause
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
    return _announce(run, submission, stage.name, executor, [stage], wait=wait)


def launch_line(
    run: RunDir, stages: Sequence[Stage], executor: str, *, wait: bool, force: bool = False
) -> int:
    """Submit a driver of `stages` and print where to look; its exit code if `wait`, else 0."""
    from hpc.cluster.submit import Resources, submit

    work = LineWork(str(run.root), stages[0].name, stages[-1].name, executor, force)
    submission = submit(
        work,
        name=f"{run.name}-line",
        logs=run.root / "logs",
        executor=executor,
        # One task that mostly waits.
        resources=Resources(time_min=24 * 60),
    )
    return _announce(run, submission, work.name, executor, stages, wait=wait)


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
