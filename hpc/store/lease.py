"""A lease: one coordinator at a time for one stage of one run directory.

Shards need no lock (P6: publishing twice is harmless), but two coordinators would conflict over the
Dask cluster, the checkpoints and the log. The lease is a file with the holder's identity, touched
every ten seconds; it is stale if its holder on this host is dead, if it was held by an earlier
start of the same Slurm job, or if its holder on another host has not touched it for two minutes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hpc.errors import RunInUseError

TOUCH_S = 10.0
STALE_S = 120.0

log = logging.getLogger(__name__)


@contextlib.contextmanager
def lease(path: Path, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold `path` while the block runs.

    Args:
        path: of the lease.
        timeout_s: how long to wait for another holder; a job requeued to another node finds the
            lease of the lost node fresh, and only its age shows that the holder is dead.

    Raises:
        RunInUseError: another live process holds it; the message has host and process id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = json.dumps(
        {"host": socket.gethostname(), "pid": os.getpid(), "born": _start_time(), **_job()}
    )
    _acquire_within(path, identity, timeout_s)
    ended = threading.Event()
    keeper = threading.Thread(target=_touch, args=(path, identity, ended), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        if _content(path) == identity:
            path.unlink(missing_ok=True)


def _start_time(pid: int | None = None) -> float | None:
    """Start time of a process on this host, s; None when there is none (zombies count as dead)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _job() -> dict[str, Any]:
    """The Slurm job this process belongs to; empty outside Slurm."""
    job = os.environ.get("SLURM_JOB_ID")
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    return {"job": job, "restart": restart} if job else {}


def _acquire_within(path: Path, identity: str, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    logged = False
    while True:
        try:
            _acquire(path, identity)
        except RunInUseError as error:
            if time.monotonic() >= until:
                raise
            if not logged:
                log.info("waiting up to %.0f s: %s", timeout_s, error)
                logged = True
            time.sleep(min(2.0, max(until - time.monotonic(), 0.0)))
        else:
            return


def _acquire(path: Path, identity: str) -> None:
    for _ in range(10):
        if _create(path, identity):
            return
        found = _read_lease(path)
        holder = live_holder(path)
        if holder is not None:
            raise RunInUseError(
                f"{path.parent} is in use by {holder}; wait for it, check it with "
                "`sarhpc status`, or cancel it"
            )
        if found is not None and _take_over(path, found, identity):
            return
    raise RunInUseError(f"{path} is contested by several starting processes; try again")


def _create(path: Path, identity: str) -> bool:
    """Whether the lease was free and is now held by this process."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(identity)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    # If the file system hung in between, others may have taken the empty lease for a dead one.
    return _content(path) == identity


def _take_over(path: Path, stale: _LeaseState, identity: str) -> bool:
    """Replace the `stale` lease by ours; False if it has changed meanwhile.

    Of several processes that find the same stale lease only one may replace it: the holder of the
    claim on it, which is itself a lease. A process that gets the claim late finds another lease
    than the one it saw and does not touch it. (If each removed the stale file and created a new
    one, the second could remove the first one's new lease.)

    Raises:
        RunInUseError: a live process is taking it over.
    """
    claim = _claim_on(path, stale)
    _acquire(claim, identity)
    if _read_lease(path) != stale:
        claim.unlink(missing_ok=True)
        return False
    os.replace(claim, path)
    return True


def _claim_on(path: Path, stale: _LeaseState) -> Path:
    mark = hashlib.sha256(f"{stale.text} {stale.inode}".encode()).hexdigest()[:8]
    return path.with_name(f"{path.stem}.{mark}.json")


class _LeaseState(NamedTuple):
    """A lease file at one moment; any other lease, or a later touch of this one, differs."""

    text: str
    inode: int
    touched_ns: int


def _read_lease(path: Path) -> _LeaseState | None:
    try:
        with path.open() as file:
            status = os.fstat(file.fileno())
            return _LeaseState(file.read(), status.st_ino, status.st_mtime_ns)
    except FileNotFoundError:
        return None


def _content(path: Path) -> str | None:
    found = _read_lease(path)
    return None if found is None else found.text


def live_holder(path: Path) -> str | None:
    """`process PID on HOST` when a live process holds `path`, else None."""
    try:
        age = time.time() - path.stat().st_mtime
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        holder = json.loads(text)
    except ValueError:
        # The holder is between creating and writing the file, or died there.
        return "a starting process" if age < TOUCH_S else None
    mine = _job()
    if mine and holder.get("job") == mine["job"] and holder["restart"] < mine["restart"]:
        # Slurm restarts a job only when all processes of its last start are gone.
        alive = False
    elif holder["host"] == socket.gethostname():
        born = _start_time(holder["pid"])
        alive = born is not None and abs(born - holder["born"]) < 1.0
    else:
        alive = age < STALE_S
    return f"process {holder['pid']} on {holder['host']}" if alive else None


def _touch(path: Path, identity: str, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_S):
        try:
            if path.read_text() != identity:
                log.error("lease=%s was taken by another process: %s", path, _content(path))
                return
            os.utime(path)
        except OSError as error:
            # A short outage of the file system must not end the heartbeat for good.
            log.warning("lease=%s cannot be touched: %s", path, error)
