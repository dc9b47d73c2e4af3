"""Processes forked from a server that has imported what trains and paints.

Such a process spends nine of its ten CPU seconds on imports. Forked, it has its own memory, session
and signals, and dies of a real SIGKILL; only its interpreter was not started anew. Every kind of
process has tests that start it as users do: tests/e2e/test_line.py, tests/unit/cluster and
tests/slurm.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = (
    "pytest",
    "torch.distributed",
    "torch.utils.tensorboard",
    "deepspeed",
    "peft",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    "transformers.models.blip.modeling_blip",
    "distributed",
    "cryptography.x509",
    "omegaconf",
    "pyproj",
    "rasterio",
    "hpc.job.checkpoint",
    "sarhpc.generation.sampler",
    "sarhpc.launch.job",
    "sarhpc.training.denoising.task",
)
"""Nothing that starts a thread: a fork has none but the one that forks."""

METHOD = "distributed.worker.multiprocessing-method"


def server() -> ForkServerContext:
    """The context whose processes are forked from the server, which runs from now on."""
    context = multiprocessing.get_context("forkserver")
    if not _server_runs():
        # A server passes over what it cannot import; ours may have been renamed.
        ours = [name for name in PRELOADED if name.startswith(("hpc.", "sarhpc."))]
        unknown = [name for name in ours if importlib.util.find_spec(name) is None]
        assert not unknown, f"no module of that name to preload: {unknown}"
        context.set_forkserver_preload(list(PRELOADED))
        forkserver.ensure_running()
    return context


def fork_dask_workers(forked: bool) -> None:
    """Let Dask fork the workers of this process's clusters, or start them anew."""
    import dask

    if forked:
        server()
    dask.config.set({METHOD: "forkserver" if forked else "spawn"})


class Forked:
    """A process with a session of its own, and what tests ask of a `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        process.start()
        assert process.pid is not None
        self.pid = process.pid

    def poll(self) -> int | None:
        """Its exit code, minus the signal that killed it, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start(
    target: Callable[..., int | None],
    *args: Any,
    log: Path,
    env: Mapping[str, str] | None = None,
    **words: Any,
) -> Forked:
    """A process that ends with the exit code `target(*args, **words)` returns.

    It and its Dask workers write to `log` and see the environment of now with `env` in it.
    """
    environment = {**os.environ, **(env or {})}
    inner = (target, args, words, log, environment)
    return Forked(server().Process(target=_enter, args=inner))


def _enter(
    target: Callable[..., int | None],
    args: tuple[Any, ...],
    words: Mapping[str, Any],
    log: Path,
    environment: Mapping[str, str],
) -> None:
    import dask

    os.setsid()
    with log.open("ab") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    _fork_own_server()
    dask.config.set({METHOD: "forkserver"})
    raise SystemExit(target(*args, **words))


def _server_runs() -> bool:
    return forkserver._forkserver._forkserver_pid is not None


def _fork_own_server() -> None:
    """A server in the session of this process, as its workers would be, with nothing to import."""
    known: Any = forkserver._forkserver
    address = connection.arbitrary_address("AF_UNIX")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        alive, held = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(held)
            # Who signals the session means those that work.
            for number in (signal.SIGUSR2, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            try:
                forkserver.main(listener.detach(), alive, [])
            finally:
                os._exit(0)
        os.close(alive)
    known._forkserver_address, known._forkserver_alive_fd = address, held
    known._forkserver_pid = pid
    # Dask would name modules to preload; they are.
    known._preload_modules = []
