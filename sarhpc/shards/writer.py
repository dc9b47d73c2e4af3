"""Writing a shard: one tar whose bytes depend on its samples alone, published whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpc.errors import DataError
from hpc.publish import fault, publishing
from sarhpc.shards.sample import Sample
from sarhpc.shards.tar import END_OF_ARCHIVE, member_header, padding

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_EXTENSION = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


@dataclass(frozen=True)
class ShardSummary:
    """What a record says of a shard: how many samples, how many bytes, and their SHA-256."""

    samples: int
    bytes: int
    sha256: str


def write_shard(
    path: Path, samples: Iterable[Sample], sync_bytes: int | None = None
) -> ShardSummary:
    """Publish `samples` as the tar `path` and return its summary; all of it appears, or nothing.

    Samples come in strictly increasing key order, members are sorted within each, and times and
    owners are fixed: equal samples give equal bytes. A shard without samples is a valid empty tar.
    One sample is held in memory at a time.

    Args:
        path: of the tar.
        samples: its samples.
        sync_bytes: bytes after which what was written is made durable, so that little is left to
            wait for at the end; None leaves all of it to the end.

    Raises:
        DataError: a key repeats or goes backwards, or a key, member name or member list is unfit.
        TransientError: the disk or a quota is full.
        Exception: whatever `samples` raises; then nothing was published.
    """
    with open_shard(path, sync_bytes=sync_bytes) as writer:
        for sample in samples:
            writer.add(sample)
    return writer.summary


@contextlib.contextmanager
def open_shard(path: Path, *, sync_bytes: int | None = None) -> Iterator[ShardWriter]:
    """A shard to add samples to, published as the tar `path` when the block ends without an error.

    Args:
        path: the tar.
        sync_bytes: bytes after which what was written is synchronised with the disk.

    Raises:
        TransientError: the disk or a quota is full.
    """
    with publishing(path) as file:
        writer = ShardWriter(file, path, sync_bytes)
        yield writer
        writer.end()


class ShardWriter:
    """A shard being written, sample by sample in key order."""

    def __init__(self, file: IO[bytes], path: Path, sync_bytes: int | None = None) -> None:
        self._file, self._tar, self._path = file, _HashedFile(file), path
        self._sync_bytes, self._synced = sync_bytes, 0
        self._count, self._previous = 0, ""

    def add(self, sample: Sample) -> None:
        """Write a sample.

        Raises:
            DataError: its key repeats or goes backwards, or key, member name or member list is
                unfit.
        """
        _check_sample(sample, self._previous, self._path)
        _write_sample(self._tar, sample)
        self._count, self._previous = self._count + 1, sample.key
        if self._sync_bytes is not None and self._tar.bytes - self._synced >= self._sync_bytes:
            self._synced = self._tar.bytes
            self._file.flush()
            os.fdatasync(self._file.fileno())
        fault("shard.mid_write")

    def end(self) -> None:
        """Write the end of the archive."""
        self._tar.write(END_OF_ARCHIVE)

    @property
    def summary(self) -> ShardSummary:
        """What was written so far."""
        return ShardSummary(self._count, self._tar.bytes, self._tar.sha256.hexdigest())


class _HashedFile:
    """A file being written, with the size and hash of what went into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.bytes = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append `data` to file and digest."""
        self.file.write(data)
        self.sha256.update(data)
        self.bytes += len(data)


def _write_sample(tar: _HashedFile, sample: Sample) -> None:
    for extension in sorted(sample.members):
        data = sample.members[extension]
        tar.write(member_header(f"{sample.key}.{extension}", len(data)))
        tar.write(data)
        tar.write(padding(len(data)))


def _check_sample(sample: Sample, previous: str, path: Path) -> None:
    if not _KEY.fullmatch(sample.key):
        raise DataError(f"{path}: key {sample.key!r} must be letters, digits, `_` and `-` only.")
    if sample.key == previous:
        raise DataError(f"{path}: key {sample.key} comes twice; keys of a shard are unique.")
    if sample.key < previous:
        raise DataError(f"{path}: key {sample.key} after {previous}; write samples in key order.")
    if not sample.members:
        raise DataError(f"{path}: sample {sample.key} has no members.")
    for extension in sample.members:
        if not _EXTENSION.fullmatch(extension):
            raise DataError(
                f"{path}: member {extension!r} of {sample.key} must be lower-case words with dots."
            )
