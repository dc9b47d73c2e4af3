"""The faults of a soak test: each breaks one thing of a cluster with jobs, and restores it.

A fault acts on the machine, never on the files of the run.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from mini_slurm import MiniSlurm
from mini_slurm_processes import is_alive
from mini_slurm_user import ClusterError


@dataclass(frozen=True)
class Scene:
    """What a fault acts on."""

    cluster: MiniSlurm
    run: Path
    draw: random.Random
    supervisor: psutil.Popen | None = None


RESTORE_TIMEOUT_S = 600.0
"""For what a fault restores: the machine may be slow."""

Fault = Callable[[Scene], str | None]
"""Injects one fault and returns what it did; None where there was nothing to break."""


def kill_process(scene: Scene) -> str | None:
    """SIGKILL to one process of a job, as the kernel does out of memory."""
    return _signal_one(scene, _ranks(scene), signal.SIGKILL)


def kill_batch_script(scene: Scene) -> str | None:
    """SIGKILL to the shell of a job's script."""
    scripts = [each for each in scene.cluster.job_processes() if _is_script(each)]
    return _signal_one(scene, scripts, signal.SIGKILL)


def kill_job(scene: Scene) -> str | None:
    """SIGKILL to every process of one job at once, its step daemons too."""
    jobs = {_job_of(each) for each in _ranks(scene)} - {""}
    if not jobs:
        return None
    job = scene.draw.choice(sorted(jobs))
    done = scene.cluster.run("scancel", "--signal=KILL", "--full", job, check=False)
    return f"SIGKILL to all of job {job}" if done.returncode == 0 else None


def freeze_process(scene: Scene) -> str | None:
    """One process of a job stands still for 15 s, as on a node that swaps."""
    ranks = _ranks(scene)
    if not ranks:
        return None
    process = scene.draw.choice(ranks)
    with contextlib.suppress(psutil.Error):
        process.suspend()
        time.sleep(15)
        process.resume()
        return f"process {process.pid} stood still for 15 s"
    return None


def preempt(scene: Scene) -> str | None:
    """Slurm requeues a running job, as when a partition is reclaimed."""
    return _command_on_job(scene, "scontrol", "requeue")


def cancel(scene: Scene) -> str | None:
    """Slurm cancels a running job, as an administrator or a policy does."""
    return _command_on_job(scene, "scancel")


def terminate(scene: Scene) -> str | None:
    """SIGTERM to all processes of a job, as before a preemption by cancellation."""
    return _command_on_job(scene, "scancel", "--signal=TERM", "--full")


def shorten_limit(scene: Scene) -> str | None:
    """The time limit of a running job ends now."""
    jobs = _running(scene)
    if not jobs:
        return None
    job = scene.draw.choice(jobs)
    with contextlib.suppress(ClusterError):
        scene.cluster.shorten(job)
        return f"time limit of job {job} ends"
    return None


def lose_node(scene: Scene) -> str | None:
    """A node loses power under its jobs and is back after 40 s."""
    busy = sorted({_environment(each, "SLURMD_NODENAME") for each in _ranks(scene)} - {""})
    if not busy:
        return None
    node = scene.draw.choice(busy)
    scene.cluster.crash_node(node)
    time.sleep(40)
    with contextlib.suppress(ClusterError):
        scene.cluster.restart_node(node, timeout_s=RESTORE_TIMEOUT_S)
    return f"node {node} without power for 40 s"


def stop_controller(scene: Scene) -> str | None:
    """The controller is away for 20 s, after a clean end or a crash."""
    hard = scene.draw.random() < 0.5
    scene.cluster.stop_controller(hard)
    time.sleep(20)
    scene.cluster.start_controller(RESTORE_TIMEOUT_S)
    return f"controller {'killed' if hard else 'stopped'} for 20 s"


def freeze_controller(scene: Scene) -> str | None:
    """The controller answers nothing for 20 s."""
    scene.cluster.freeze_controller()
    time.sleep(20)
    scene.cluster.thaw_controller()
    return "controller answered nothing for 20 s"


def kill_supervisor(scene: Scene) -> str | None:
    """SIGKILL to `sarhpc supervise`; the soak starts it again, as cron would."""
    if scene.supervisor is None or not is_alive(scene.supervisor):
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        scene.supervisor.kill()
        return "SIGKILL to the supervisor"
    return None


def fill_disk(scene: Scene) -> str | None:
    """No space is left on the run's file system for 15 s; only where that is one of its own."""
    if not scene.run.parent.is_mount() or shutil.disk_usage(scene.run.parent).total > 16 << 30:
        return None
    filler = scene.run.parent / "filler"
    with _filled(filler):
        time.sleep(15)
    return "no space left for 15 s"


FAULTS: tuple[Fault, ...] = (
    kill_process,
    kill_batch_script,
    kill_job,
    freeze_process,
    preempt,
    cancel,
    terminate,
    shorten_limit,
    lose_node,
    stop_controller,
    freeze_controller,
    kill_supervisor,
    fill_disk,
)


@contextlib.contextmanager
def _filled(filler: Path) -> Iterator[None]:
    block = b"\0" * (1 << 20)
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(block)
        yield
    finally:
        filler.unlink(missing_ok=True)


def _signal_one(
    scene: Scene, processes: Sequence[psutil.Process], number: signal.Signals
) -> str | None:
    if not processes:
        return None
    process = scene.draw.choice(processes)
    job = _job_of(process)
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
        return f"{number.name} to process {process.pid} of job {job}"
    return None


def _command_on_job(scene: Scene, *command: str) -> str | None:
    jobs = _running(scene)
    if not jobs:
        return None
    job = scene.draw.choice(jobs)
    done = scene.cluster.run(*command, job, check=False)
    return f"{' '.join(command)} {job}" if done.returncode == 0 else None


def _running(scene: Scene) -> list[str]:
    with contextlib.suppress(ClusterError):
        return [row["id"] for row in scene.cluster.squeue("-t", "R")]
    return []


def _ranks(scene: Scene) -> list[psutil.Process]:
    """Python processes of jobs."""
    found = []
    for process in scene.cluster.job_processes():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("python"):
                found.append(process)
    return found


def _is_script(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("slurm_script" in word for word in process.cmdline())
    return False


def _environment(process: psutil.Process, name: str) -> str:
    with contextlib.suppress(psutil.Error):
        return str(process.environ().get(name, ""))
    return ""


def _job_of(process: psutil.Process) -> str:
    return _environment(process, "SLURM_JOB_ID")
