"""Submission: one call for a job on this machine (`local`, `debug`).

With `hpc.cluster.batch`, which does it for Slurm, the only owner of submitit; the work runs in the
same worker of submitit either way. submitit launches; it neither checkpoints nor requeues for us:
its handler for SIGUSR2 acts on rank 0 alone, and a stop request installed inside the work replaces
it. What a job must know travels in the pickled work; how far it got never does, that is on disk.

A local job outlives the process that submitted it, as a Slurm job does. What is guaranteed for it:
its tasks end when its controller dies, when another task has failed for a while, and at
`time_min`; Ctrl-C in `wait` ends it too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hpc.cluster.profile import Resources
from hpc.errors import ConfigError, HpcError
from hpc.publish import publish_json

__all__ = ["RankedWork", "Resources", "Submission", "WorkFailedError", "check_work", "submit"]

HERE = ("local", "debug")
"""Executors of this machine."""

PATIENCE_S = 60
"""Seconds that tasks of this machine go on after another one has failed; srun ends them at once."""

_log = logging.getLogger(__name__)


class WorkFailedError(HpcError):
    """The work of a job ended with an exit code other than 0."""


@dataclass(frozen=True)
class RankedWork:
    """What submitit runs in every task: tell the work its rank, record how it ended.

    submitit's own TorchDistributedEnvironment is not used: it narrows CUDA_VISIBLE_DEVICES to one
    device and exports LOCAL_RANK as well, and DeepSpeed's `set_device(LOCAL_RANK)` then asks for
    a device that is not there.
    """

    work: Callable[[], int]
    executor: str
    patience_s: float
    """Seconds that a local task goes on after another one has failed."""
    outcomes: Path | None = None
    """Directory where each task publishes `<rank>.json`; None on Slurm, whose records tell."""
    port: int | None = None
    """Port of rank 0's rendezvous; None to derive it from the job id."""
    cuda_devices: str | None = None
    """CUDA_VISIBLE_DEVICES of the job; None to leave what the launcher set."""

    def __call__(self) -> int:
        """Run the work; an exit code other than 0 becomes a failed task.

        Raises:
            WorkFailedError: so that the launcher sees a failure. Not under `debug`, where
                submitit would open a debugger.
            SystemExit: with that code on Slurm, so that its records show it.
        """
        import submitit

        environment = submitit.JobEnvironment()
        rank, tasks = environment.global_rank, environment.num_tasks
        os.environ.update(self._variables(environment))
        mine = None if self.outcomes is None else _outcome_path(self.outcomes, rank)
        if mine is not None:
            mine.unlink(missing_ok=True)
        if self.executor != "debug":
            # submitit makes tasks deaf to SIGTERM; ours end, unless the work listens itself.
            signal.signal(signal.SIGTERM, _leave)
        if self.executor == "local" and self.outcomes is not None:
            others = [_outcome_path(self.outcomes, k) for k in range(tasks) if k != rank]
            guard = threading.Thread(
                target=_guard, args=(os.getppid(), others, self.patience_s), daemon=True
            )
            guard.start()
        code, failure = _run(self.work)
        if mine is not None:
            publish_json(mine, {"exit_code": code, "failure": failure, "finished": time.time()})
        if self.executor != "debug":
            # All is said. A handler that runs while the interpreter is taken down could hang it,
            # and Slurm waits for every rank before a requeued job may start again.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if code != 0 and self.executor == "slurm":
            raise SystemExit(code)
        if code != 0 and self.executor != "debug":
            raise WorkFailedError(f"exit code {code}: {failure}")
        return code

    def _variables(self, environment: Any) -> dict[str, str]:
        tasks, nodes = environment.num_tasks, environment.num_nodes
        variables = {
            "RANK": str(environment.global_rank),
            "WORLD_SIZE": str(tasks),
            "LOCAL_RANK": str(environment.local_rank),
            "LOCAL_WORLD_SIZE": str(tasks // nodes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
        }
        if self.port is None:
            # Below the ephemeral ports, and another one for the next job on the same node, and
            # for the next attempt of this one, should the last still linger.
            attempt = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
            port = 20000 + (int(environment.raw_job_id) + 1009 * attempt) % 10000
            variables["MASTER_PORT"] = str(port)
            # srun's own address needs no name lookup; submitit's host list calls scontrol.
            address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or environment.hostnames[0]
            variables["MASTER_ADDR"] = address
        if self.cuda_devices is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.cuda_devices
        return variables


class Submission:
    """A submitted job: where its logs are, and how it ends."""

    def __init__(self, job: Any, name: str, logs: Path, executor: str, outcomes: Path) -> None:
        self.name = name
        self.logs = logs
        self.executor = executor
        self.job_id: str = job.job_id
        self.stdout: tuple[Path, ...] = ()
        """Standard output of every task, by rank."""
        self.stderr: tuple[Path, ...] = ()
        """Standard error of every task, by rank."""
        self.failure: str | None = None
        """After `wait`: what went wrong, in one line; None if nothing did."""
        tasks = [job.task(rank) for rank in range(job.num_tasks)]
        self.stdout = tuple(Path(task.paths.stdout) for task in tasks)
        self.stderr = tuple(Path(task.paths.stderr) for task in tasks)
        self._job = job
        self._outcomes = outcomes

    @property
    def description(self) -> str:
        """Job id and log paths, one a line, for a person."""
        lines = [f"job {self.job_id} ({self.name}, {self.executor}, {len(self.stdout)} tasks)"]
        return "\n".join(lines + [f"log {path}" for path in self.stderr])

    def wait(self, poll_s: float = 0.2) -> int:
        """The exit code of the work: 0, or that of the task that failed first.

        Never raises for a failing job; `failure` then says what happened. An interrupted wait
        ends the job.
        """
        try:
            while not self._job.done():
                time.sleep(poll_s)
        except BaseException:
            if self.executor == "local":
                self.cancel()
            raise
        code, self.failure = self._verdict()
        return code

    def cancel(self, grace_s: float = 30.0) -> None:
        """End the job: SIGTERM first, so that the work can save, then less politely."""
        if self.executor != "local":
            self._job.cancel()
            return
        for number, patience_s in (
            (signal.SIGTERM, grace_s),
            (signal.SIGINT, 20),
            (signal.SIGKILL, 5),
        ):
            if self._job.done():
                return
            # The id of a local job is the process id of its controller, which passes signals on.
            os.kill(int(self.job_id), number)
            until = time.monotonic() + patience_s
            while not self._job.done() and time.monotonic() < until:
                time.sleep(0.05)

    def _verdict(self) -> tuple[int, str | None]:
        outcomes = self._read_outcomes()
        failed = [
            (ended["finished"], rank, ended)
            for rank, ended in outcomes.items()
            if ended["exit_code"]
        ]
        silent = [rank for rank in range(len(self.stderr)) if rank not in outcomes]
        lost = (
            f"rank {silent[0]} ended without a word (killed?), see {self.stderr[silent[0]]}"
            if silent
            else ""
        )
        if failed:
            # The first to fail is the cause; the others lose touch with it.
            _, rank, ended = min(failed, key=lambda item: item[:2])
            words = f"rank {rank}: {ended['failure']}, see {self.stderr[rank]}"
            return int(ended["exit_code"]), f"{words}; {lost}" if lost else words
        return (1, lost) if silent else (0, None)

    def _read_outcomes(self) -> dict[int, dict[str, Any]]:
        """What each task published."""
        paths = {rank: _outcome_path(self._outcomes, rank) for rank in range(len(self.stderr))}
        return {rank: json.loads(path.read_text()) for rank, path in paths.items() if path.exists()}


def submit(
    work: Callable[[], int],
    *,
    name: str,
    logs: Path,
    executor: str,
    resources: Resources,
) -> Submission:
    """Submit `work` and return at once with the job's id and log paths.

    Args:
        work: picklable by reference (an instance of a module-level class); its return value is
            the exit code. Every task calls it, with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
            MASTER_PORT in its environment.
        name: job name, `<run>-<stage>`.
        logs: directory for logs.
        executor: `local` (one process per task) or `debug` (one task in this process, run by
            `wait`).
        resources: what the job asks for.

    Raises:
        ConfigError: the executor is unknown here, several nodes were asked of this machine, or
            the work cannot be pickled.
    """
    import submitit

    _check(work, executor, resources)
    logs.mkdir(parents=True, exist_ok=True)
    outcomes = logs / f"outcomes-{secrets.token_hex(4)}"
    launcher = submitit.AutoExecutor(logs, cluster=executor)
    launcher.update_parameters(
        name=name,
        nodes=resources.nodes,
        tasks_per_node=resources.tasks_per_node,
        cpus_per_task=resources.cpus_per_task,
        gpus_per_node=resources.gpus_per_node,
        mem_gb=resources.mem_gb,
        timeout_min=resources.time_min,
    )
    job = launcher.submit(
        RankedWork(
            work=work,
            executor=executor,
            outcomes=outcomes.absolute(),
            patience_s=PATIENCE_S,
            port=_free_port(),
            cuda_devices=_cuda_devices(resources) if executor == "local" else None,
        )
    )
    submission = Submission(job, name, logs, executor, outcomes)
    _log.info("submitted job=%s name=%s executor=%s", submission.job_id, name, executor)
    return submission


def _check(work: Callable[[], int], executor: str, resources: Resources) -> None:
    if executor not in HERE:
        raise ConfigError(f"executor {executor!r} is not one of {', '.join(HERE)}")
    if executor == "local" and resources.nodes > 1:
        raise ConfigError(f"executor local has one node, not {resources.nodes}; use slurm")
    if executor == "debug" and resources.tasks > 1:
        _log.warning("executor debug runs 1 task in this process instead of %d", resources.tasks)
    check_work(work)


def check_work(work: Callable[[], int]) -> None:
    """Return if `work` can travel to another process.

    Raises:
        ConfigError: it cannot be pickled by reference.
    """
    try:
        pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"work {work!r} cannot travel to another process: {error}. Use an instance of a class "
            "defined at the top of a module."
        ) from error


def _run(work: Callable[[], int]) -> tuple[int, str | None]:
    """Exit code of the work and, unless it is 0, what went wrong in one line."""
    try:
        code = work()
    except HpcError as error:
        traceback.print_exc()
        return error.exit_code, f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        return 130, "interrupted"
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except Exception as error:
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}"
    return code, f"exit code {code}" if code else None


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _guard(parent: int, others: list[Path], patience_s: float) -> None:
    """End this task when its controller is gone or another task has failed for a while."""
    failed_since = float("inf")
    while os.getppid() == parent and time.monotonic() - failed_since < patience_s:
        time.sleep(0.5)
        if failed_since == float("inf") and any(map(_has_failed, others)):
            failed_since = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    # A task that hangs in a collective never gets to its handler.
    time.sleep(30.0)
    os.kill(os.getpid(), signal.SIGKILL)


def _has_failed(outcome: Path) -> bool:
    return outcome.exists() and json.loads(outcome.read_text())["exit_code"] != 0


def _outcome_path(outcomes: Path, rank: int) -> Path:
    return outcomes / f"{rank:05d}.json"


def _free_port() -> int:
    """A port that is free now; the system does not hand it out again soon."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cuda_devices(resources: Resources) -> str | None:
    """The first devices this process may use, where submitit would count from 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible or resources.gpus_per_node == 0:
        return None
    return ",".join(visible.split(",")[: resources.gpus_per_node])
