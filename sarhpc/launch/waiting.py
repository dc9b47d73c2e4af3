"""Waiting for submitted work in its view: Ctrl-C detaches from it, twice stops it."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence

from hpc.errors import IncompleteError
from hpc.job.pipeline import Stage, unsealed_stages
from hpc.observe.status import RunStatus, run_status
from hpc.observe.watch import Watching, never, watch
from hpc.store.rundir import RunDir
from sarhpc.launch.outcome import outcome_lines
from sarhpc.launch.stopping import cancel_jobs
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

DETACHED = 130
"""Exit code of a command that detached from its work: that of any command ended by Ctrl-C."""
SECOND_S = 3.0
"""Time after Ctrl-C in which another one stops the work, s."""
QUEUE_S = 30.0
"""Interval between two queries of the queue, s."""
STOPPING_S = 5.0
"""The same after a stop, which ends within seconds, s."""
LOG_S = 30.0
"""Interval between two lines where there is no terminal, s."""


def wait_in_view(
    run: RunDir,
    stop: Callable[[], object],
    *,
    every_s: float,
    has_ended: Callable[[], bool] = never,
    is_over: Callable[[RunStatus], bool] = lambda status: status.complete,
) -> RunStatus | None:
    """The last status of the run once its work has ended; None if Ctrl-C detached from it.

    Args:
        run: the run.
        stop: requests that its work saves and ends.
        every_s: seconds between two looks at the status.
        has_ended: whether the work has ended, polled between two looks.
        is_over: whether a status is the last one.
    """
    stages = line_of_stages(load_run_config(run))
    watching = Watching(
        lambda: run_status(run, stages),
        every_s if sys.stdout.isatty() else max(every_s, LOG_S),
        is_over,
        has_ended,
        hint="Ctrl-C detaches, twice stops the run",
    )
    try:
        return watch(watching)
    except KeyboardInterrupt:
        pass  # the first one detaches, below
    try:
        # The next Ctrl-C may come while this is being printed.
        _say_how_to_come_back(run)
        time.sleep(SECOND_S)
        return None
    except KeyboardInterrupt:
        stop()
        print("stopping; work saves first", flush=True)
    ending = dataclasses.replace(
        watching,
        every_s=min(watching.every_s, STOPPING_S),
        hint="stopping; Ctrl-C does not wait for it",
    )
    try:
        return watch(ending)
    except KeyboardInterrupt:
        return None


def _say_how_to_come_back(run: RunDir) -> None:
    print(
        f"\nthe run goes on without this terminal; Ctrl-C within {SECOND_S:.0f} s stops it\n"
        f"  watch   sarhpc status {run.quoted} --watch\n"
        f"  stop    sarhpc stop {run.quoted}",
        flush=True,
    )


def wait_for_jobs(run: RunDir, stages: Sequence[Stage]) -> int:
    """Wait in view until nothing works on the run, or `stages` are sealed: 0 then or if stopped.

    Raises:
        IncompleteError: they are not sealed, and nobody has stopped the run.
    """

    def is_over(status: RunStatus) -> bool:
        """Whether the stages are sealed, or no job is left."""
        if all(run.ledger(stage.name).sealed for stage in stages):
            return True
        return status.on_its_way is False

    ended = wait_in_view(run, lambda: cancel_jobs(run, now=False), every_s=QUEUE_S, is_over=is_over)
    if ended is None:
        return DETACHED
    open_stages = [stage.name for stage in unsealed_stages(run, stages)]
    failed = bool(open_stages) and not run.stop_file.exists()
    print("\n".join(outcome_lines(run, failed=failed)))
    if failed:
        raise IncompleteError(
            f"no job is left and {', '.join(open_stages)} not sealed; see "
            f"`sarhpc logs {run.quoted} --failed`, then `sarhpc resume {run.quoted}`"
        )
    return 0
