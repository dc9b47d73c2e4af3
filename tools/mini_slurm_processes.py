"""The processes of a mini Slurm cluster: found by command line and environment, ended in order."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil


def find_daemon(pid_file: Path, root: Path) -> psutil.Process | None:
    """The living process that wrote `pid_file`, if it belongs to the cluster under `root`."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(pid_file.read_text()))
        ours = [*process.cmdline(), *process.environ().values()]
        if is_alive(process) and any(str(root) in word for word in ours):
            return process
    return None


def find_job_processes(root: Path, nodes: Sequence[str]) -> list[psutil.Process]:
    """Step daemons, then tasks, of the jobs on `nodes`, also if reparented."""
    logs = {root / f"log/slurmd.{node}.log" for node in nodes}
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    steps, tasks = [], []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid in spared or not is_alive(process):
                continue
            # A step daemon wipes its environment, but holds its node's log open.
            if process.name().startswith("slurmstepd"):
                if logs & _open_files(process):
                    steps.append(process)
            elif _is_task(process.environ(), root, nodes):
                tasks.append(process)
    return steps + tasks


def _is_task(env: dict[str, str], root: Path, nodes: Sequence[str]) -> bool:
    ours = env.get("SLURM_CONF") == str(root / "slurm.conf") and "SLURM_JOB_ID" in env
    return ours and env.get("SLURMD_NODENAME") in nodes


def _open_files(process: psutil.Process) -> set[Path]:
    found = set()
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(link.readlink())
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end(processes: Sequence[psutil.Process], timeout_s: float) -> list[str]:
    """SIGTERM, and SIGKILL after `timeout_s`; names those that were killed.

    Raises:
        TimeoutError: One outlives SIGKILL by ten seconds.
    """
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not any(map(is_alive, processes)), timeout_s)
    return kill(processes)


def kill(processes: Sequence[psutil.Process]) -> list[str]:
    """SIGKILL for all of them at once; names those that lived until then.

    Each is suspended first, so that none sees and reports the end of another.

    Raises:
        TimeoutError: One outlives it by ten seconds.
    """
    killed = []
    living = [process for process in processes if is_alive(process)]
    for process in living:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    for process in living:
        with contextlib.suppress(psutil.Error):
            killed.append(f"{process.name()} ({process.pid})")
            process.kill()
    wait_until(lambda: not any(map(is_alive, living)), 10)
    return killed


def wait_until(condition: Callable[[], object], timeout_s: float) -> None:
    """Wait until `condition` holds.

    Raises:
        TimeoutError: It does not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {timeout_s} s")
        time.sleep(0.1)
