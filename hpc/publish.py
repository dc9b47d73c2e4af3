"""Publishing: a reader sees a whole artefact or none (promise P1).

Order is the contract: bytes to `.name.host.pid.n.tmp` in the target directory, flush, fsync,
`os.replace`, fsync of the directory; and only then the record, by the same steps. A rename is
atomic only inside one file system, so the temporary file never lives anywhere else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from hpc.clock import file_system_time
from hpc.errors import HpcError, TransientError, is_disk_full
from hpc.regular_files import open_regular

_ASIDE = ".aside"
_SLOW_DISK_S = 10.0
_sequence = itertools.count()
_passages: dict[str, int] = {}

Guard = Callable[[], None]
"""Raises if the caller may not publish any more."""


@dataclass(frozen=True)
class Digest:
    """Size in bytes and SHA-256 of a published file."""

    bytes: int
    sha256: str


def fault(point: str) -> None:
    """Inject a fault at the `nth` visit of `point` if `SARHPC_FAULT=point:nth:action` says so.

    Actions: `kill` (SIGKILL to this process), `enospc` (a full disk), `raise` (an HpcError), `wait`
    (a disk that takes 10 s). Several faults are separated by commas; `nth` counts from 1 within one
    process.
    """
    spec = os.environ.get("SARHPC_FAULT")
    if not spec:
        return
    _passages[point] = _passages.get(point, 0) + 1
    for item in spec.split(","):
        name, nth, action = (*item.split(":"), "1", "raise")[:3]
        if name == point and int(nth) == _passages[point]:
            _trigger(point, action)


def _trigger(point: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "wait":
        time.sleep(_SLOW_DISK_S)
        return
    if action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), point)
    raise HpcError(f"fault injected at {point}")


def temporary_path(target: Path) -> Path:
    """Name for an unfinished `target`: same directory, hidden, unique to host, process and call."""
    stamp = f"{socket.gethostname()}.{os.getpid()}.{next(_sequence)}"
    return target.with_name(f".{target.name}.{stamp}.tmp")


def fsync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def publishing(target: Path, guard: Guard | None = None) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes `target`, whole and durable, when the block ends well.

    On an exception the temporary file is removed and an existing `target` is untouched.

    Args:
        target: file to publish.
        guard: called before anything is written, and again directly before the rename, when a
            slow disk can no longer come between; what it raises keeps `target` as it is.

    Raises:
        TransientError: the disk or a quota is full; nothing was published.
    """
    if guard is not None:
        guard()
    temporary = temporary_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            fault("publish.after_open")
            yield file
            file.flush()
            fault("publish.before_fsync")
            os.fsync(file.fileno())
        fault("publish.before_rename")
        if guard is not None:
            guard()
        os.replace(temporary, target)
        fault("publish.after_rename")
        fsync_directory(target.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise _no_space(target) from error
        raise


def _no_space(target: Path) -> TransientError:
    return TransientError(
        f"no space left while writing {target}; nothing was published there. "
        "Free space or raise the quota, then resume."
    )


def publish_bytes(target: Path, data: bytes, guard: Guard | None = None) -> Digest:
    """Publish `data` as `target` and return its digest; `guard` as for `publishing`."""
    with publishing(target, guard) as file:
        file.write(data)
    return Digest(len(data), hashlib.sha256(data).hexdigest())


def publish_text(target: Path, text: str, guard: Guard | None = None) -> Digest:
    """Publish `text` in UTF-8 as `target` and return its digest; `guard` as for `publishing`."""
    return publish_bytes(target, text.encode(), guard)


def publish_json(target: Path, value: Any, guard: Guard | None = None) -> Digest:
    """Publish `value` as JSON with sorted keys, one newline at the end; `guard` likewise."""
    return publish_text(target, json.dumps(value, sort_keys=True, indent=1) + "\n", guard)


@contextlib.contextmanager
def publishing_directory(target: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """Yield a directory that becomes `target` by one rename when the block ends well.

    An existing `target` is moved aside first and removed afterwards: a reader finds the old
    directory, briefly none, or the new one, never a mixture. With `keep_existing`, for directories
    named by their content, one that another process published meanwhile stays, as it may be in use.

    Raises:
        TransientError: the disk or a quota is full; nothing was published.
    """
    staging = temporary_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
        commit_directory(staging, target, keep_existing=keep_existing)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        _restore(_previous_path(target), target)
        if is_disk_full(error):
            raise _no_space(target) from error
        raise


def commit_directory(
    staging: Path, target: Path, guard: Guard | None = None, *, keep_existing: bool = False
) -> None:
    """Make all under `staging` durable and rename it to `target`; `guard` as for `publishing`.

    With `keep_existing` a `target` with content stays and `staging` is removed.
    """
    for directory, _, names in os.walk(staging):
        for name in names:
            with (Path(directory) / name).open("rb") as file:
                os.fsync(file.fileno())
        fsync_directory(Path(directory))
    fault("publish.directory_before_rename")
    if guard is not None:
        guard()
    aside = _previous_path(target)
    if target.exists() and not keep_existing:
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(target, aside)
        fault("publish.directory_between_renames")
    try:
        os.replace(staging, target)
    except OSError as error:
        if not keep_existing or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)
    fault("publish.directory_after_rename")
    fsync_directory(target.parent)


def _previous_path(target: Path) -> Path:
    """Where the previous directory is kept; not a `.tmp` name, which cleaning up would remove."""
    return target.with_name(f".{target.name}{_ASIDE}")


def _restore(aside: Path, target: Path) -> None:
    """Restore a directory whose writer ended between its two renames."""
    if aside.exists() and not target.exists():
        with contextlib.suppress(OSError):
            # Fails if a live writer has put the new directory in place meanwhile: that one stays.
            os.rename(aside, target)


def digest_file(path: Path) -> Digest:
    """Size and SHA-256 of a file on disk."""
    with open_regular(path) as file:
        sha256 = hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
    return Digest(path.stat().st_size, sha256)


def remove_stale_temporaries(directory: Path, older_than_s: float) -> list[Path]:
    """Remove temporary files of killed writers older than `older_than_s`; returns their paths.

    A directory that its writer had moved aside and not yet replaced is restored first.
    """
    for aside in directory.glob(f".*{_ASIDE}"):
        _restore(aside, aside.with_name(aside.name[1 : -len(_ASIDE)]))
    found = sorted(directory.glob(".*.tmp"))
    limit = _now_at(directory) - older_than_s if found else 0.0
    removed = []
    for path in found:
        if (written := _modified(path)) is not None and written <= limit:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _now_at(directory: Path) -> float:
    """Time by the file system: on a node whose clock is ahead, live writers' files look old."""
    try:
        return file_system_time(directory)
    except OSError:
        # A full disk takes no file, and cleaning up is what it needs.
        return time.time()


def _modified(path: Path) -> float | None:
    """Time of the last change, s; None if a live writer has renamed the file meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
