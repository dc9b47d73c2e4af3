"""Jobs of this machine, through submitit: one stage, or a driver that takes stages in order."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from signal import SIGHUP, SIGINT, SIGTERM
from types import FrameType
from typing import TYPE_CHECKING

from hpc.errors import IncompleteError
from hpc.job.pipeline import Stage, unsealed_stages
from hpc.observe.logs import failure_cause, tail
from hpc.store.local_jobs import LocalJob, live_local_jobs, record_local_job
from hpc.store.rundir import RunDir
from sarhpc.launch.line import LineWork, submit_stage
from sarhpc.launch.outcome import outcome_lines
from sarhpc.launch.started import Note, StartedJob, no_note, note_local_job
from sarhpc.launch.stopping import request_stop
from sarhpc.launch.waiting import DETACHED, wait_in_view

if TYPE_CHECKING:
    from hpc.cluster.submit import Submission

EVERY_S = 2.0
"""Interval between two looks at the status, s."""
LOG_LINES = 20
"""Lines of the log of a job that failed."""


def launch_stage(
    run: RunDir,
    stage: Stage,
    executor: str,
    *,
    wait: bool,
    force: bool = False,
    note: Note = no_note,
) -> int:
    """Submit a stage and print where to look; its exit code if `wait`, else 0."""
    submission = submit_stage(run, stage, executor, force=force)
    _record(run, submission, stage.name)
    note_local_job(note, submission, stage.name)
    return _announce(run, submission, stage.name, executor, [stage], wait=wait)


def launch_line(
    run: RunDir,
    stages: Sequence[Stage],
    executor: str,
    *,
    wait: bool,
    force: bool = False,
    note: Note = no_note,
) -> int:
    """Submit a driver of `stages` and print where to look; its exit code if `wait`, else 0.

    A driver that works already is left alone, with `wait` it is the one that is waited for; one
    that received a stop is waited for by the new one.

    Raises:
        IncompleteError: the driver that worked already has ended, and stages are not sealed.
    """
    drivers = [job for job in live_local_jobs(run) if job.what.startswith("line:")]
    if working := [job for job in drivers if not job.stopped]:
        note(StartedJob(working[0].what, str(working[0].pid), new=False))
        text = f"{run.root} is worked on by process {working[0].pid} on {working[0].host}"
        print(
            f"nothing to start: {text}; see its progress with: sarhpc status {run.quoted} --watch"
        )
        return _wait_for_driver(run, working[0], stages) if wait else 0
    behind = tuple(job.pid for job in drivers)
    submission, name = start_driver(run, stages, executor, force=force, behind=behind)
    note_local_job(note, submission, name)
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
    print(f"  watch   sarhpc status {run.quoted} --watch")
    print(f"  stop    sarhpc stop {run.quoted}", flush=True)
    if executor == "debug":
        code = _carry_out_here(submission)
    elif not wait:
        return 0
    else:
        ended = wait_in_view(
            run, lambda: request_stop(run), every_s=EVERY_S, has_ended=lambda: submission.ended
        )
        if ended is None:
            return DETACHED
        code = submission.wait()
    if code != 0:
        _print_failure(run, submission, stages)
    print("\n".join(outcome_lines(run, failed=code != 0)))
    return code


def _wait_for_driver(run: RunDir, driver: LocalJob, stages: Sequence[Stage]) -> int:
    """Wait for a driver that another command has started; 0 if `stages` are sealed then.

    Raises:
        IncompleteError: they are not.
    """
    ended = wait_in_view(
        run, lambda: request_stop(run), every_s=EVERY_S, has_ended=lambda: not driver.alive
    )
    if ended is None:
        return DETACHED
    left = [stage.name for stage in unsealed_stages(run, stages)]
    failed = bool(left) and not run.stop_file.exists()
    print("\n".join(outcome_lines(run, failed=failed)))
    if failed:
        cause = failure_cause(run, stages)
        raise IncompleteError(
            f"process {driver.pid} has ended and {', '.join(left)} not sealed"
            + (f": {cause}" if cause else f"; `sarhpc resume {run.quoted}` goes on")
        )
    return 0


def _print_failure(run: RunDir, submission: Submission, stages: Sequence[Stage]) -> None:
    """Print the end of the job's log unless it was shown, and why the job failed."""
    if submission.executor != "debug":
        for path in submission.stderr:
            if path.is_file():
                print("\n".join(["", f"==> {path}", *tail(path, LOG_LINES)]), file=sys.stderr)
    if submission.failure:
        print(submission.failure, file=sys.stderr)
    if (cause := failure_cause(run, stages)) is not None:
        print(f"failed: {cause}", file=sys.stderr)


def _carry_out_here(submission: Submission) -> int:
    """Carry out a debug job in this process, whose log is this terminal's; its exit code.

    Ctrl-C, and the end of the terminal, make it save and end; Ctrl-C again ends it at once.
    """
    before = {number: signal.signal(number, _save_and_end) for number in (SIGINT, SIGHUP)}
    try:
        return submission.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save_and_end(number: int, frame: FrameType | None) -> None:
    signal.signal(SIGINT, signal.default_int_handler)
    if number == SIGINT:
        print("stopping; work saves first. Ctrl-C again ends it at once", file=sys.stderr)
    os.kill(os.getpid(), SIGTERM)
