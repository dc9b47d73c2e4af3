"""Dask for one job: a private cluster over the nodes of its allocation.

Only this module and `dask_shards` use Dask. Members authenticate by TLS certificates made for this
cluster, and its files are readable by the user only. A cluster of one machine listens on the
loopback interface, one of several nodes on the address of the node. The scheduler runs in the job's
rank 0, which also distributes the shards; the other tasks join with their workers. Losing any
process loses only the shards in progress: finished ones are in the ledger.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.clock import file_system_time
from hpc.cluster.allocation import Allocation, current_allocation
from hpc.cluster.certificate import Credentials, issue_credentials, write_private
from hpc.errors import HpcError, TransientError
from hpc.memory import KEPT_BYTES, OWN_MAPPING_BYTES
from hpc.signals import ignore_stop_signals

if TYPE_CHECKING:
    from distributed import Client, Security

_log = logging.getLogger(__name__)
_LOOPBACK = "127.0.0.1"
_STARTS = 3


@contextlib.contextmanager
def dask_cluster(
    directory: Path,
    workers: int,
    threads: int = 1,
    *,
    shared: bool = False,
    ends: float | None = None,
) -> Iterator[Client]:
    """Yield a client of a new cluster with `workers` processes on this machine.

    A worker that dies is restarted by its nanny. Workers ignore SIGUSR2 and SIGTERM, which Slurm
    sends to every process of a job: their owner decides when they end. They end with it, even if
    it is killed.

    Args:
        directory: for the scheduler file `scheduler-<Slurm job and restart, or process>.json` and
            the certificates, all mode 0600; removed at the end.
        workers: number of worker processes; each sees one of the GPUs this process sees.
        threads: shards that one worker runs concurrently.
        shared: let the other tasks of this job join by `join_cluster`, also from other nodes.
        ends: time at which workers exit by themselves, s since the epoch by this node's clock.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    _send_by_monotonic_clock()
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    here = current_allocation()
    _remove_earlier_starts(directory, here)
    scheduler_file = directory / f"scheduler-{here.name}.json"
    credentials = issue_credentials(directory, here.name)
    security = _security(credentials)
    host = node_address(here.node) if shared else _LOOPBACK
    options = {"security": security, "host": host}
    quiet = {"dashboard": False, "dashboard_address": f"{_LOOPBACK}:0", "protocol": "tls"}
    try:
        with (
            _private_scratch() as scratch,
            dask.config.set(_settings() | scratch),
            SpecCluster(
                scheduler={"cls": Scheduler, "options": {**options, **quiet}},
                workers={
                    number: {"cls": Nanny, "options": {**options, **own}}
                    for number, own in enumerate(_worker_options(workers, threads, ends))
                },
                security=security,
                silence_logs=logging.WARNING,
            ) as cluster,
            Client(cluster, security=security) as client,
        ):
            _write_scheduler_file(scheduler_file, cluster.scheduler_address, credentials, ends)
            client.wait_for_workers(workers, timeout=120)
            yield client
    finally:
        scheduler_file.unlink(missing_ok=True)
        credentials.remove()


def join_cluster(
    directory: Path,
    workers: int,
    *,
    is_over: Callable[[], bool],
    timeout_s: float = 1800.0,
) -> bool:
    """Join the cluster of this job's rank 0 with `workers` processes until it ends.

    Args:
        directory: where rank 0 writes its scheduler file.
        workers: number of worker processes; each sees one of the GPUs this process sees.
        is_over: polled while there is no cluster yet; true stops waiting.
        timeout_s: how long to wait for the cluster, s.

    Returns:
        Whether there was a cluster to join.

    Raises:
        TransientError: no cluster was started in time.
    """
    import asyncio

    import dask

    file = directory / f"scheduler-{current_allocation().name}.json"
    document = _await_scheduler_file(file, is_over, timeout_s)
    if document is None:
        return False
    security = _security(_credentials_in(document))
    _send_by_monotonic_clock()
    with _private_scratch() as scratch, dask.config.set(_settings() | scratch):
        options = _worker_options(workers, 1, document["ends"])
        asyncio.run(_run_nannies(document["address"], security, options, file.exists))
    return True


def worker_stacks(client: Client, timeout_s: float = 10.0) -> str:
    """Current stacks of the workers of `client`, or why they are not available."""
    try:
        stacks = client.sync(client.scheduler.call_stack, keys=None, callback_timeout=timeout_s)
    except (OSError, TimeoutError) as error:
        return f"the workers do not respond: {error!r}"
    return "\n".join(
        f"worker {address} task {task}:\n{''.join(frames)}"
        for address, tasks in stacks.items()
        for task, frames in tasks.items()
    )


def node_address(node: str) -> str:
    """Address of this node that other nodes can reach.

    Raises:
        TransientError: the node's name cannot be resolved.
    """
    from distributed.utils import get_ip

    try:
        address = socket.gethostbyname(node)
    except OSError as error:
        raise TransientError(
            f"this node cannot resolve its own name: {node}: {error}; "
            "check its name service, or exclude the node"
        ) from error
    # Some sites map a node's own name to a loopback address in its hosts file.
    outward: str = get_ip() if address.startswith("127.") and address != _LOOPBACK else address
    return outward


def connect(scheduler_file: Path, timeout_s: float = 10.0) -> Client:
    """A client of the running cluster that wrote `scheduler_file`.

    Raises:
        TransientError: the cluster has ended or does not respond.
    """
    from distributed import Client

    try:
        document = json.loads(scheduler_file.read_text())
        security = _security(_credentials_in(document))
        return Client(document["address"], security=security, timeout=timeout_s)
    except OSError as error:
        raise TransientError(
            f"no Dask cluster responds for {scheduler_file}: {error}. "
            "A cluster exists only as long as its job."
        ) from error


def dask_setup(worker: Any) -> None:
    """Prepare a new worker process; Dask calls this because the module is preloaded there."""
    ignore_stop_signals()
    _send_by_monotonic_clock()
    logging.getLogger("distributed.worker").addFilter(_is_unexpected)


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Whether Dask is to log a record with a traceback: of expected errors the message is enough.

    That is logged by who distributes the shards.
    """
    if not str(record.msg).startswith("Compute Failed"):
        return True
    text = record.getMessage().partition("\nException: ")[2].lstrip("\"'")
    return text.partition("(")[0] not in _names_of(HpcError)


def _names_of(error: type[Exception]) -> set[str]:
    """Name of an error and of everything derived from it."""
    return {error.__name__}.union(*map(_names_of, error.__subclasses__()))


def _send_by_monotonic_clock() -> None:
    """Let Dask time its messages by a clock that nobody sets.

    It holds messages back until a moment of the wall clock, some milliseconds later: after a clock
    was set back, for hours, in which no shard starts.
    """
    import distributed.batched

    distributed.batched.time = time.monotonic


def _settings() -> dict[str, Any]:
    return {
        # One death fails the task at once: run_shards counts deaths, to report the reason.
        "distributed.scheduler.allowed-failures": 0,
        # run_shards places the tasks itself.
        "distributed.scheduler.work-stealing": False,
        # Health and metrics pages would be open to anyone on the machine.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        "distributed.worker.preload": [__name__],
        # A shard is minutes of compiled code that may block the worker's event loop.
        "distributed.scheduler.worker-ttl": None,
        "distributed.comm.timeouts.connect": "60s",
        # Workers would tell each of their connections on the terminal of who started them.
        "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "warning",
        # Dask makes malloc return all memory at once (a trim threshold of 64 kB, which also fixes
        # that of mmap): every array then needed fresh pages, and tiling took twice as long.
        # A node has many workers, so each keeps less than a single process does.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": KEPT_BYTES // 4,
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": OWN_MAPPING_BYTES,
    }


@contextlib.contextmanager
def _private_scratch() -> Iterator[dict[str, Any]]:
    """The setting of a directory for workers; Dask's own name for it others could take first."""
    with tempfile.TemporaryDirectory(prefix="sarhpc-dask-", ignore_cleanup_errors=True) as folder:
        yield {"temporary-directory": folder}


def _security(credentials: Credentials) -> Security:
    from distributed import Security

    paths = {"cert": str(credentials.certificate), "key": str(credentials.key)}
    roles = {
        f"tls_{role}_{part}": path
        for role in ("scheduler", "worker", "client")
        for part, path in paths.items()
    }
    return Security(require_encryption=True, tls_ca_file=str(credentials.ca), **roles)


def _worker_options(workers: int, threads: int, ends: float | None) -> Iterator[dict[str, Any]]:
    """Options of each of `workers` nannies; with several GPUs, one each."""
    gpus = current_allocation().gpus
    for number in range(workers):
        yield {
            "nthreads": threads,
            "memory_limit": 0,
            "dashboard": False,
            "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {},
            "lifetime": None if ends is None else f"{max(ends - time.time(), 1.0):.0f} seconds",
            "death_timeout": 60,
        }


async def _run_nannies(
    address: str,
    security: Security,
    options: Iterator[dict[str, Any]],
    is_running: Callable[[], bool],
) -> None:
    """Run nannies until the scheduler has ended."""
    import asyncio

    host = node_address(current_allocation().node)
    shared = {"security": security, "host": host}
    await asyncio.gather(*(_run_nanny(address, shared | own, is_running) for own in options))


async def _run_nanny(address: str, options: dict[str, Any], is_running: Callable[[], bool]) -> None:
    """Run one nanny until the scheduler has ended; without it the job continues, more slowly."""
    from distributed import Nanny

    for _ in range(_STARTS):
        nanny = Nanny(address, **options)
        try:
            await nanny
        # A nanny restarts a worker that dies at work, but not one that dies while it starts.
        except (RuntimeError, OSError, TimeoutError) as error:
            if not is_running():
                return
            _log.warning("a worker did not start: %r", error.__cause__ or error)
            continue
        try:
            await nanny.finished()
        finally:
            await nanny.close()
        return
    _log.error("no worker starts on this node: the job continues without it")


def _remove_earlier_starts(directory: Path, here: Allocation) -> None:
    """Remove the files of earlier starts of this job, so that no task connects to them."""
    if here.job_id is not None:
        for path in directory.glob(f"*-{here.job_id}-*"):
            path.unlink(missing_ok=True)


def _await_scheduler_file(
    path: Path, is_over: Callable[[], bool], timeout_s: float
) -> dict[str, Any] | None:
    """The scheduler file, with `ends` by this node's clock; None if it is over before."""
    until = time.monotonic() + timeout_s
    while not path.exists():
        if is_over():
            return None
        if time.monotonic() >= until:
            raise TransientError(
                f"rank 0 has not opened a Dask cluster in {timeout_s:.0f} s ({path}); see its log"
            )
        # Listing the directory makes a network file system refresh its cache.
        os.listdir(path.parent.parent)
        time.sleep(0.5)
    with path.open() as file:
        document: dict[str, Any] = json.load(file)
        written = os.fstat(file.fileno()).st_mtime
    left_s = document["left_s"]
    # The clock of this node may differ from that of rank 0, which wrote how long workers may stay.
    age_s = file_system_time(path.parent) - written
    return document | {"ends": None if left_s is None else time.time() + left_s - age_s}


def _credentials_in(document: Mapping[str, Any]) -> Credentials:
    return Credentials(*(Path(document["tls"][part]) for part in ("ca", "cert", "key")))


def _write_scheduler_file(
    path: Path, address: str, credentials: Credentials, ends: float | None
) -> None:
    document = {
        "type": "Scheduler",
        "address": address,
        "left_s": None if ends is None else ends - time.time(),
        "tls": {
            "ca": str(credentials.ca.absolute()),
            "cert": str(credentials.certificate.absolute()),
            "key": str(credentials.key.absolute()),
        },
    }
    write_private(path, (json.dumps(document, indent=1) + "\n").encode())
