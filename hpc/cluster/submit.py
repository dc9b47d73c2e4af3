"""Submission of jobs to this machine (`local`, `debug`).

Only this module, `hpc.cluster.detached` and `hpc.cluster.batch`, which submits to Slurm, use
submitit; the work runs in the same submitit worker either way. submitit launches; it neither
checkpoints nor requeues for us: its handler for SIGUSR2 acts on rank 0 only, and a stop request
installed inside the work replaces it. The pickled work holds the parameters of a job, never its
progress, which is on disk.

A local job outlives the process that submitted it and its terminal, as a Slurm job does: it has a
session of its own, so that neither Ctrl-C nor the hang-up of a closed terminal reaches it. It is
guaranteed that its tasks end when its controller dies, seconds after another task has failed or was
killed, and at `time_min`; an interrupted `wait` ends it too.
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
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hpc.cluster.detached import detached
from hpc.cluster.local_tasks import publish_outcome, watch_tasks
from hpc.cluster.profile import Resources
from hpc.errors import ConfigError, HpcError

__all__ = [
    "RankedWork",
    "Resources",
    "Submission",
    "require_picklable",
    "submit",
]

LOCAL_EXECUTORS = ("local", "debug")
"""Executors of this machine."""

FAILURE_GRACE_S = 5.0
"""Seconds that local tasks continue after another one has failed; srun ends them at once."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RankedWork:
    """The callable that submitit runs in every task: exports the rank, runs the work, records it.

    submitit's own TorchDistributedEnvironment is not used: it narrows CUDA_VISIBLE_DEVICES to one
    device and exports LOCAL_RANK as well, and DeepSpeed's `set_device(LOCAL_RANK)` then selects a
    device that does not exist.
    """

    work: Callable[[], int]
    executor: str
    failure_grace_s: float
    """Seconds that a local task continues after another one has failed."""
    outcomes: Path | None = None
    """Directory where each task publishes `<rank>.json`; None on Slurm, which has accounting."""
    port: int | None = None
    """Port of rank 0's rendezvous; None to derive it from the job id."""
    cuda_devices: str | None = None
    """CUDA_VISIBLE_DEVICES of the job; None to leave what the launcher set."""

    def __call__(self) -> int:
        """Run the work; an exit code other than 0 becomes a failed task.

        Raises:
            SystemExit: with that code, so that Slurm's records show it; of another exception
                submitit logs a traceback. Not under `debug`, which is the process of the command.
        """
        import submitit

        environment = submitit.JobEnvironment()
        rank, tasks = environment.global_rank, environment.num_tasks
        os.environ.update(self._variables(environment))
        mine = None if self.outcomes is None else _outcome_path(self.outcomes, rank)
        if mine is not None:
            mine.unlink(missing_ok=True)
        if self.executor != "debug":
            # submitit makes tasks ignore SIGTERM; ours exit, unless the work handles it.
            signal.signal(signal.SIGTERM, _exit_on_signal)
        if self.executor == "local" and self.outcomes is not None:
            others = {k: _outcome_path(self.outcomes, k) for k in range(tasks) if k != rank}
            watch_tasks(os.getppid(), others, _outcome_path(self.outcomes, rank),
                        self.failure_grace_s)  # fmt: skip
        code, failure = _run(self.work)
        if mine is not None:
            publish_outcome(mine, code, failure)
        if self.executor != "debug":
            # The work is done. A handler that runs during interpreter shutdown could hang it, and
            # Slurm waits for every rank before a requeued job can start again.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if code != 0 and self.executor != "debug":
            raise SystemExit(code)
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
            # Below the ephemeral ports, and different for the next job on the same node and for
            # the next attempt of this one, in case the last still holds its port.
            attempt = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
            port = 20000 + (int(environment.raw_job_id) + 1009 * attempt) % 10000
            variables["MASTER_PORT"] = str(port)
            # srun's address needs no name lookup; submitit's host list calls scontrol.
            address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or environment.hostnames[0]
            variables["MASTER_ADDR"] = address
        if self.cuda_devices is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.cuda_devices
        return variables


class Submission:
    """A submitted job: its logs and its result."""

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
        """After `wait`: the failure in one line; None if there was none."""
        tasks = [job.task(rank) for rank in range(job.num_tasks)]
        self.stdout = tuple(Path(task.paths.stdout) for task in tasks)
        self.stderr = tuple(Path(task.paths.stderr) for task in tasks)
        self._job = job
        self._outcomes = outcomes

    @property
    def description(self) -> str:
        """Job id and log paths for display, one per line."""
        lines = [f"job {self.job_id} ({self.name}, {self.executor}, {len(self.stdout)} tasks)"]
        return "\n".join(lines + [f"log {path}" for path in self.stderr])

    @property
    def ended(self) -> bool:
        """Whether every task has ended; asking a `debug` job carries it out."""
        return bool(self._job.done())

    def wait(self, poll_s: float = 0.2) -> int:
        """The exit code of the work: 0, or that of the task that failed first.

        Never raises for a failing job; `failure` then has the reason. An interrupted wait ends the
        job.
        """
        try:
            while not self.ended:
                time.sleep(poll_s)
        except BaseException:
            if self.executor == "local":
                self.cancel()
            raise
        code, self.failure = self._verdict()
        return code

    def cancel(self, grace_s: float = 30.0) -> None:
        """End the job: SIGTERM first, so that the work can save, then SIGINT and SIGKILL."""
        if self.executor != "local":
            self._job.cancel()
            return
        for number, failure_grace_s in (
            (signal.SIGTERM, grace_s),
            (signal.SIGINT, 20),
            (signal.SIGKILL, 5),
        ):
            if self._job.done():
                return
            # The id of a local job is the process id of its controller, which forwards signals.
            os.kill(int(self.job_id), number)
            until = time.monotonic() + failure_grace_s
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
            f"rank {silent[0]} ended without a result (killed?), see {self.stderr[silent[0]]}"
            if silent
            else ""
        )
        if not failed:
            return (1, lost) if silent else (0, None)
        # The first to fail is the cause; the others lose their connection to it.
        _, rank, ended = min(failed, key=lambda item: item[:2])
        failure = f"rank {rank}: {ended['failure']}, see {self.stderr[rank]}"
        # Tasks that the watch ends have an outcome: one without was killed before.
        return (1, f"{lost}; {failure}") if silent else (int(ended["exit_code"]), failure)

    def _read_outcomes(self) -> dict[int, dict[str, Any]]:
        """Results that the tasks published, by rank."""
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
        resources: of the job.

    Raises:
        ConfigError: the executor is not a local one, several nodes were requested, or the work
            cannot be pickled.
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
    ranked = RankedWork(
        work=work,
        executor=executor,
        outcomes=outcomes.absolute(),
        failure_grace_s=FAILURE_GRACE_S,
        port=_free_port(),
        cuda_devices=_cuda_devices(resources) if executor == "local" else None,
    )
    # A debug job runs later, inside `wait`.
    with detached() if executor == "local" else contextlib.nullcontext():
        job = launcher.submit(ranked)
    submission = Submission(job, name, logs, executor, outcomes)
    _log.info("submitted job=%s name=%s executor=%s", submission.job_id, name, executor)
    return submission


def _check(work: Callable[[], int], executor: str, resources: Resources) -> None:
    if executor not in LOCAL_EXECUTORS:
        raise ConfigError(f"executor {executor!r} is not one of {', '.join(LOCAL_EXECUTORS)}")
    if executor == "local" and resources.nodes > 1:
        raise ConfigError(f"executor local has one node, not {resources.nodes}; use slurm")
    if executor == "debug" and resources.tasks > 1:
        _log.warning("executor debug runs 1 task in this process instead of %d", resources.tasks)
    require_picklable(work)


def require_picklable(work: Callable[[], int]) -> None:
    """Raise ConfigError unless `work` can be pickled by reference."""
    try:
        pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"work {work!r} cannot be pickled: {error}. Use an instance of a class defined at the "
            "top level of a module."
        ) from error


def _run(work: Callable[[], int]) -> tuple[int, str | None]:
    """Exit code of the work and, unless it is 0, the failure in one line."""
    try:
        code = work()
    except HpcError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code, f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        return 130, "interrupted"
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except Exception as error:
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}"
    return code, f"exit code {code}" if code else None


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _outcome_path(outcomes: Path, rank: int) -> Path:
    return outcomes / f"{rank:05d}.json"


def _free_port() -> int:
    """A port that is free now; the system does not assign it again soon."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cuda_devices(resources: Resources) -> str | None:
    """The first visible devices of this process, where submitit would count from 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible or resources.gpus_per_node == 0:
        return None
    return ",".join(visible.split(",")[: resources.gpus_per_node])
