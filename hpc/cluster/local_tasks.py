"""Tasks of a local job watch each other: if one fails or is killed, all end within seconds.

srun does this on a cluster. Without it rank 0 waits ten minutes in a rendezvous that a killed rank
never reaches, holds the lease, and every `resume` waits with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from hpc.publish import publish_json

POLL_S = 0.5
"""Interval between two looks at the other tasks, s."""
SAVE_S = 30.0
"""Seconds that a task may take to save when its controller has died."""


def publish_outcome(path: Path, exit_code: int, failure: str | None) -> None:
    """Publish how this task ended at `path`, for the other tasks and the submitter."""
    # All tasks are on this machine: its monotonic clock orders them, and nobody sets it.
    ended = {"exit_code": exit_code, "failure": failure, "finished": time.monotonic()}
    publish_json(path, ended)


def watch_tasks(
    controller: int, others: Mapping[int, Path], mine: Path, failure_grace_s: float
) -> None:
    """Start a thread that ends this task if its controller, or one of the other tasks, is gone.

    Args:
        controller: process id of the parent of all tasks.
        others: where each of the other tasks publishes its outcome, by rank.
        mine: where this task publishes its own.
        failure_grace_s: how long it continues after another one has failed, and again after
            SIGTERM, s.
    """
    arguments = (controller, others, mine, failure_grace_s)
    threading.Thread(target=_watch, args=arguments, daemon=True, name="watch-tasks").start()


def _watch(controller: int, others: Mapping[int, Path], mine: Path, failure_grace_s: float) -> None:
    missed = set[int]()
    while os.getppid() == controller:
        time.sleep(POLL_S)
        # One look is not enough: a task may be starting, or ending with its outcome on the way.
        before, missed = missed, _gone(controller, others)
        if before & missed or any(map(_has_failed, others.values())):
            time.sleep(failure_grace_s)
            break
    # With a task missing there is no collective left in which to save.
    save_s = SAVE_S if os.getppid() != controller else failure_grace_s
    os.kill(os.getpid(), signal.SIGTERM)
    # A task that hangs in a collective never runs its handler.
    time.sleep(save_s)
    if not mine.exists():
        publish_outcome(mine, 128 + signal.SIGKILL, "ended because another task was gone")
    os.kill(os.getpid(), signal.SIGKILL)


def _gone(controller: int, others: Mapping[int, Path]) -> set[int]:
    """Those of the `others` that are no living child of the controller and left no outcome."""
    import psutil

    living = set[int]()
    with contextlib.suppress(psutil.NoSuchProcess):
        for task in psutil.Process(controller).children():
            # That of a zombie, which nobody has waited for yet, cannot be read.
            with contextlib.suppress(psutil.Error, OSError, KeyError):
                living.add(int(task.environ()["SUBMITIT_LOCAL_GLOBALID"]))
    return {rank for rank, outcome in others.items() if rank not in living and not outcome.exists()}


def _has_failed(outcome: Path) -> bool:
    return outcome.exists() and json.loads(outcome.read_text())["exit_code"] != 0
