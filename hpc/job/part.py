"""One rank's part of a checkpoint: written, synced and digested by the rank itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from hpc.errors import HpcError
from hpc.job.manifest import digest_files, files_under, find_problem
from hpc.publish import Digest, fault

T = TypeVar("T")
Write = Callable[[Path], Iterable[Path] | None]
"""Writes this rank's part under a directory; may return the files it wrote."""

_VISIBLE_WITHIN_S = 60.0


def write_part(staging: Path, write: Write) -> list[Path]:
    """Let this rank write into `staging`; returns the files that `write` reports."""
    fault("checkpoint.rank_write")
    written = [staging / path for path in write(staging) or ()]
    fault("checkpoint.after_rank_write")
    return written


def run_in_thread(action: Callable[[], T]) -> Future[T]:
    """The result of `action`, run in a daemon thread; the process may exit before it ends."""
    future: Future[T] = Future()

    def work() -> None:
        """Set the result or the exception of the future."""
        try:
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    # A pool's thread would be joined at exit: for ever, if the disk hangs.
    threading.Thread(target=work, name="checkpoint", daemon=True).start()
    return future


def sync_part(staging: Path, written: list[Path]) -> dict[str, Digest]:
    """Sync the files that this rank has `written`; returns their digests."""
    fault("checkpoint.settle")
    for path in written:
        # Every rank syncs its own files: rank 0 cannot flush another node's page cache.
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return digest_files(staging, written)


def await_files(staging: Path, files: Mapping[str, Digest]) -> None:
    """Wait until all reported files are visible here: parallel file systems show them late.

    Raises:
        HpcError: a file is still missing after a minute.
    """
    until = time.monotonic() + _VISIBLE_WITHIN_S
    while (problem := find_problem(staging, files, deep=False)) is not None:
        if time.monotonic() > until:
            raise HpcError(f"{problem} on rank 0, {_VISIBLE_WITHIN_S:.0f} s after it was written")
        time.sleep(0.1)


def joined_parts(staging: Path, parts: Sequence[Mapping[str, Digest]]) -> dict[str, Digest]:
    """Digests of all files in `staging`: those that the ranks report, and whatever else is there.

    Raises:
        HpcError: two ranks report the same file, one is missing after a minute or empty, or there
            is none at all.
    """
    files = {name: digest for part in parts for name, digest in part.items()}
    if len(files) != sum(map(len, parts)):
        raise HpcError("two ranks report the same file; file names must differ between ranks")
    await_files(staging, files)
    others = [
        path for path in files_under(staging) if path.relative_to(staging).as_posix() not in files
    ]
    files.update(digest_files(staging, others))
    empty = sorted(name for name, digest in files.items() if digest.bytes == 0)
    if empty or not files:
        raise HpcError(f"empty files: {', '.join(empty[:5])}" if empty else "no file written")
    return files
