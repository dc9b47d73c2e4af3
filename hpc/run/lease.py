"""A lease: one coordinator at a time on one stage of one run directory.

Shards need no lock (P6: publishing twice is harmless), but two coordinators would fight over the
Dask cluster, the checkpoints and the log. The lease is a file with the holder's identity, touched
every ten seconds; it is stale when the holder on this host is dead, when it was held by an earlier
start of the same Slurm job, or when another host's holder has not touched it for two minutes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc.errors import RunInUseError

TOUCH_S = 10.0
STALE_S = 120.0

log = logging.getLogger(__name__)


@contextlib.contextmanager
def lease(path: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold `path` while the block runs.

    Args:
        path: of the lease.
        patience_s: how long to wait for another holder; a job that comes back on another node
            finds the lease of the lost one fresh, and only silence tells that it is dead.

    Raises:
        RunInUseError: another live process holds it; says which.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = json.dumps(
        {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(), **_job()}
    )
    _acquire_patiently(path, identity, patience_s)
    ended = threading.Event()
    keeper = threading.Thread(target=_touch, args=(path, identity, ended), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        if _text(path) == identity:
            path.unlink(missing_ok=True)


def _born(pid: int | None = None) -> float | None:
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


def _acquire_patiently(path: Path, identity: str, patience_s: float) -> None:
    until = time.monotonic() + patience_s
    said = False
    while True:
        try:
            _acquire(path, identity)
        except RunInUseError as error:
            if time.monotonic() >= until:
                raise
            if not said:
                log.info("waiting up to %.0f s: %s", patience_s, error)
                said = True
            time.sleep(min(2.0, max(until - time.monotonic(), 0.0)))
        else:
            return


def _acquire(path: Path, identity: str) -> None:
    for _ in range(10):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            seen = _text(path)
            holder = live_holder(path)
            if holder is not None:
                raise RunInUseError(
                    f"{path.parent} is in use by {holder}; wait for it, look at it with "
                    "`sarhpc status`, or cancel it"
                ) from None
            _remove_stale(path, seen)
            continue
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(identity)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return
    raise RunInUseError(f"{path} is contested by several starting processes; try again")


def _remove_stale(path: Path, seen: str | None) -> None:
    """Take the stale lease away; put it back when it is another one by now.

    Two processes that find the same stale lease would else remove each other's new one.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return
    if _text(aside) != seen:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


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
        # The holder is between creating and writing, or died there.
        return "a starting process" if age < TOUCH_S else None
    mine = _job()
    if mine and holder.get("job") == mine["job"] and holder["restart"] < mine["restart"]:
        # Slurm starts a job again only when all of its last start is gone.
        alive = False
    elif holder["host"] == socket.gethostname():
        born = _born(holder["pid"])
        alive = born is not None and abs(born - holder["born"]) < 1.0
    else:
        alive = age < STALE_S
    return f"process {holder['pid']} on {holder['host']}" if alive else None


def _touch(path: Path, identity: str, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_S):
        try:
            if path.read_text() != identity:
                log.error("lease=%s was taken over by another process: %s", path, _text(path))
                return
            os.utime(path)
        except OSError as error:
            # A file system that is away for a moment must not end the heartbeat for good.
            log.warning("lease=%s cannot be touched: %s", path, error)
