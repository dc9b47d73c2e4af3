"""Staging: files copied once to the node's own disk, for work that reads them repeatedly.

All processes of a node request the same files; the first one copies, the others reuse the copies.
Files that do not fit, in bytes or in inodes, are read from their original location, which is
logged. The last process of a job to use the copies removes them; the copies of a killed job are
removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc.cluster.allocation import current_allocation
from hpc.errors import VerificationError, is_disk_full

_log = logging.getLogger(__name__)
_PREFIX = "sarhpc-staged-"
_SPARE = 0.1
"""Share of the free space that is left to others."""


@dataclass(frozen=True)
class Space:
    """Space on a file system, available or required."""

    bytes: int
    inodes: int

    def fits(self, requested: Space) -> bool:
        """Whether `requested` fits in here with the reserve left."""
        part = 1 - _SPARE
        return requested.bytes <= part * self.bytes and requested.inodes <= part * self.inodes


def free_space(directory: Path) -> Space:
    """Space available to an unprivileged user on the file system of `directory`."""
    usage = os.statvfs(directory)
    # Some file systems allocate inodes on demand and report none.
    inodes = usage.f_favail if usage.f_files else 1 << 62
    return Space(usage.f_bavail * usage.f_frsize, inodes)


@contextlib.contextmanager
def staged(files: Mapping[Path, str], local: Path | None) -> Iterator[list[Path]]:
    """Yield the paths to read `files` from: copies on this node's disk, or the files themselves.

    Args:
        files: path -> SHA-256, verified while copying.
        local: directory on a disk of this node; None reads the files in place.

    Raises:
        VerificationError: a file does not match its record.
    """
    own = _own_directory(local) if local is not None else None
    if own is None:
        yield list(files)
        return
    with own.joinpath(".lock").open("w") as lock:
        # Held while the copies are read, so that no other process removes them.
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield _copies(files, own) or list(files)
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            _remove_if_unused(own)


def _own_directory(local: Path) -> Path | None:
    """The private directory of this job under `local`; None if it cannot be created."""
    own = local / f"{_PREFIX}{current_allocation().name}"
    try:
        local.mkdir(parents=True, exist_ok=True)
        for other in local.glob(f"{_PREFIX}*"):
            if other != own and _is_private(other):
                _remove_if_unused(other)
        own.mkdir(mode=0o700, exist_ok=True)
        if not _is_private(own):
            # Under that name, which can be guessed, links would lead our writes elsewhere.
            _log.warning("nothing is staged to %s: others can write there; remove it", own)
            return None
        # On a disk without inodes not even the locks can be made.
        for name in (".lock", ".copying"):
            own.joinpath(name).touch()
    except OSError as error:
        _log.warning("nothing is staged to %s: %s", local, error)
        _remove_if_unused(own)
        with contextlib.suppress(OSError):
            own.rmdir()
        return None
    return own


def _is_private(directory: Path) -> bool:
    """Whether it is a directory, no link, that only this user can enter."""
    try:
        found = directory.lstat()
    except OSError:  # removed meanwhile
        return False
    is_closed = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    return is_closed and found.st_uid == os.geteuid()


def _remove_if_unused(directory: Path) -> None:
    """Remove staged files that no process reads."""
    try:
        with directory.joinpath(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    except OSError:
        # In use, owned by another user, or already removed.
        return


def _copies(files: Mapping[Path, str], own: Path) -> list[Path] | None:
    """Copies of all `files`, made by the first process of this node; None if they do not fit."""
    targets = {file: own / f"{sha256[:16]}-{file.name}" for file, sha256 in files.items()}
    with own.joinpath(".copying").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [file for file, target in targets.items() if not target.exists()]
        requested = Space(sum(file.stat().st_size for file in missing), len(missing))
        free = free_space(own)
        if not free.fits(requested):
            _log.warning(
                "nothing is staged to %s: %.2f GB in %d files do not fit into %.2f GB and %d "
                "inodes; they are read in place",
                own, requested.bytes / 1e9, requested.inodes, free.bytes / 1e9, free.inodes,
            )  # fmt: skip
            return None
        try:
            for file in missing:
                _copy(file, targets[file], files[file])
        except OSError as error:
            if not is_disk_full(error):
                raise
            _log.warning("nothing is staged to %s: %s; files are read in place", own, error)
            return None
    if missing:
        _log.info("staged files=%d gb=%.2f to=%s", requested.inodes, requested.bytes / 1e9, own)
    return list(targets.values())


def _copy(file: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    part = target.with_name(f".{target.name}.part")
    try:
        with file.open("rb") as source, part.open("wb") as copy:
            while block := source.read(1 << 22):
                digest.update(block)
                copy.write(block)
        if digest.hexdigest() != sha256:
            raise VerificationError(
                f"{file} does not match its record; check with `sarhpc verify --deep`, then make "
                "it again"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def node_local(name: str | None) -> Path | None:
    """The directory `name` with `$VARIABLES` expanded; None if it is empty or one is not set."""
    if not name:
        return None
    path = os.path.expandvars(name)
    if "$" in path:
        _log.warning("nothing is staged: %s is not set on this node", name)
        return None
    return Path(path)


def existing_folder(name: str | None) -> Path | None:
    """The deepest existing parent of the directory that `name` means on this node, or None."""
    local = node_local(name)
    if local is None:
        return None
    return next((folder for folder in (local, *local.parents) if folder.exists()), None)
