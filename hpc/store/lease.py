"""A lease: one coordinator at a time for one stage of one run directory.

Shards need no lock (P6: publishing twice is harmless), but two coordinators would conflict over the
Dask cluster, the checkpoints and the log. The lease is a file with the holder's identity, touched
every ten seconds. It is stale if its holder, of this kernel or an earlier start of this job, is
dead, or if nobody has touched it for two minutes by the clock of the file system while a contender
has watched it for two and a half heartbeats: no two nodes' clocks are compared.

A process may still lose its lease while it lives: stopped, cut off from the file system, on a node
that the scheduler has given up. So whatever it publishes is guarded by `Lease.require_held`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hpc.clock import file_system_time
from hpc.errors import HpcError, LeaseLostError, RunInUseError
from hpc.regular_files import open_regular
from hpc.store.identity import is_alive, own_identity, parse_identity

TOUCH_S = 10.0
STALE_S = 120.0
WATCHED_BEATS = 2.5
"""Heartbeats that must be missed before the eyes of a process that takes a lease over."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """A lease that this process took; a copy of it guards what its workers publish."""

    path: Path
    identity: str
    """Content of the file while it is held; unique to this process and this taking."""

    def is_held(self) -> bool:
        """Whether no other process has taken it over; reads the file once."""
        return _content(self.path) == self.identity

    def require_held(self) -> None:
        """Raise LeaseLostError unless it is still held; a guard of what the holder publishes."""
        if not self.is_held():
            raise self.lost()

    def lost(self) -> LeaseLostError:
        """The error of a holder that lost it, with the new holder."""
        text = _content(self.path)
        whom = (
            "was removed, as after the work of another process"
            if text is None
            else f"was taken over by {_name_of(text)}, as it was not renewed in time"
        )
        return LeaseLostError(
            f"{self.path.parent}: the lease of this process ({_name_of(self.identity)}) {whom}. "
            "What it had published is kept, and it publishes nothing more; `sarhpc status` shows "
            "where the stage stands"
        )


@contextlib.contextmanager
def lease(
    path: Path, timeout_s: float = 0.0, on_loss: Callable[[], None] = lambda: None
) -> Iterator[Lease]:
    """Hold `path` while the block runs.

    Args:
        path: of the lease.
        timeout_s: how long to wait for another holder; a job requeued to another node finds the
            lease of the lost node fresh, and only its age shows that the holder is dead.
        on_loss: called once, in another thread, when the lease is found to be lost.

    Raises:
        RunInUseError: another live process holds it; the message has host and process id.
        LeaseLostError: the block failed after another process had taken the lease over.
    """
    held = Lease(path, own_identity().to_json())
    with _unwritable_folder_named(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire_within(path, held.identity, timeout_s)
    ended = threading.Event()
    keeper = threading.Thread(target=_touch, args=(held, ended, on_loss), daemon=True)
    keeper.start()
    try:
        yield held
    except Exception as error:
        # Whatever else it says, the cause is that the work goes on elsewhere.
        with contextlib.suppress(OSError):
            if not isinstance(error, LeaseLostError) and not held.is_held():
                raise held.lost() from error
        raise
    finally:
        ended.set()
        keeper.join()
        _release(held)


def _release(held: Lease) -> None:
    try:
        if held.is_held():
            held.path.unlink(missing_ok=True)
    except OSError as error:
        # It goes stale by itself; raised here it would hide how the work ended.
        log.warning("lease=%s cannot be removed: %s", held.path, error)


@contextlib.contextmanager
def _unwritable_folder_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise HpcError(
            f"{folder} cannot be written ({error.strerror}), and the stage keeps its records "
            "there; check its owner, mode and mount, then `sarhpc resume`"
        ) from error


class _Watch:
    """How long a contender has seen a lease unchanged, by its own monotonic clock."""

    def __init__(self) -> None:
        self._seen: _LeaseState | None = None
        self._since = 0.0

    def unchanged_s(self, found: _LeaseState) -> float:
        """Seconds since `found` was first seen, without a touch in between."""
        if found != self._seen:
            self._seen, self._since = found, time.monotonic()
        return time.monotonic() - self._since


def _acquire_within(path: Path, identity: str, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    watch, logged = _Watch(), False
    while True:
        try:
            found = _acquire(path, identity, watch)
        except RunInUseError as error:
            if time.monotonic() >= until:
                raise
            if not logged:
                log.info("waiting up to %.0f s: %s", timeout_s, error)
                logged = True
            time.sleep(min(2.0, max(until - time.monotonic(), 0.0)))
            continue
        if found is None:
            return
        if not logged:
            log.info("waiting for a sign of life of %s, which holds %s", _name_of(found), path)
            logged = True
        time.sleep(TOUCH_S / 10)


def _acquire(path: Path, identity: str, watch: _Watch) -> str | None:
    """None once the lease is ours; the content of one that looks stale and must be watched on.

    Raises:
        RunInUseError: a live process holds it.
    """
    for _ in range(10):
        if _create(path, identity):
            return None
        found = _read_lease(path)
        if found is None:
            continue
        alive = _is_alive(found, file_system_time(path.parent), watch.unchanged_s(found))
        if alive:
            raise RunInUseError(
                f"{path.parent} is in use by {_name_of(found.text)}; wait for it, check it with "
                "`sarhpc status`, or cancel it"
            )
        if alive is None:
            return found.text
        if _take_over(path, found, identity):
            return None
    raise RunInUseError(f"{path} is contested by several starting processes; try again")


def _is_alive(found: _LeaseState, now: float, unchanged_s: float) -> bool | None:
    """Whether the holder lives; None while the lease looks stale but was not watched for long.

    Args:
        found: the lease.
        now: time by the clock of its file system, s since the epoch.
        unchanged_s: how long this process has seen it unchanged.
    """
    holder = parse_identity(found.text)
    known = is_alive(holder) if holder is not None else None
    if known is not None:
        return known
    # The holder of an empty lease is between creating and writing it, or died there; one that was
    # damaged is given no more time.
    limit_s = STALE_S if holder is not None else TOUCH_S
    if unchanged_s >= limit_s:
        # Where nodes date files themselves, a clock ahead leaves a lease of the future.
        return False
    if now - found.touched_ns / 1e9 < limit_s:
        return True
    return False if unchanged_s >= WATCHED_BEATS * TOUCH_S else None


def _name_of(text: str) -> str:
    """`process PID on HOST` of the identity in a lease."""
    return str(parse_identity(text) or "a starting process")


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
    _acquire_within(claim, identity, 0.0)
    if _read_lease(path) != stale:
        claim.unlink(missing_ok=True)
        return False
    os.replace(claim, path)
    return True


def _claim_on(path: Path, stale: _LeaseState) -> Path:
    seen = f"{stale.text} {stale.inode}".encode(errors="surrogateescape")
    mark = hashlib.sha256(seen).hexdigest()[:8]
    return path.with_name(f"{path.stem}.{mark}.json")


class _LeaseState(NamedTuple):
    """A lease file at one moment; any other lease, or a later touch of this one, differs."""

    text: str
    inode: int
    touched_ns: int


def _read_lease(path: Path) -> _LeaseState | None:
    try:
        with io.TextIOWrapper(open_regular(path), errors="surrogateescape") as file:
            status = os.fstat(file.fileno())
            return _LeaseState(file.read(), status.st_ino, status.st_mtime_ns)
    except FileNotFoundError:
        return None


def _content(path: Path) -> str | None:
    found = _read_lease(path)
    return None if found is None else found.text


def live_holder(path: Path) -> str | None:
    """`process PID on HOST` when a process that holds `path` seems to live, else None.

    For display: it looks once, writes nothing, and relies on the clock of this node.
    """
    found = _read_lease(path)
    if found is None or not _is_alive(found, time.time(), 0.0):
        return None
    return _name_of(found.text)


def _touch(held: Lease, ended: threading.Event, on_loss: Callable[[], None]) -> None:
    while not ended.wait(TOUCH_S):
        try:
            if not held.is_held():
                log.error("lost the lease %s: %s", held.path, held.lost())
                on_loss()
                return
            os.utime(held.path)
        except OSError as error:
            # A short outage of the file system must not end the heartbeat for good.
            log.warning("lease=%s cannot be touched: %s", held.path, error)
