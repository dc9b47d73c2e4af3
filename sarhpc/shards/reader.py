"""Reading shards: in order, or any sample at once through an index; ours and any WebDataset tar.

As in WebDataset, the key of a member is its path up to the first dot of the file name, the rest is
the extension, and consecutive members of one key are one sample. So public sets with `.sar.png`,
`.sar.npy`, `.optic.png` and `.meta.json` members (SARLO-80) are read as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from hpc.regular_files import open_regular
from sarhpc.shards.sample import Sample
from sarhpc.shards.tar import Member, read_exactly, scan_members

_READ_AHEAD = 1 << 20
_MOST_EXTENSIONS = 256

T = TypeVar("T")


def read_shard(path: Path) -> Iterator[Sample]:
    """Yield the samples of a shard in order; one sample is held in memory at a time.

    Raises:
        DataError: the shard is missing, cut short, damaged or unsafe; samples before the damage
            have been yielded by then.
    """
    with _open(path, _READ_AHEAD) as file:
        contents = (
            (member.name, read_exactly(file, member, path)) for member in scan_members(file, path)
        )
        for key, members in _group(contents, path):
            yield Sample(key, members, path)


def read_member(path: Path, extension: str, *, ended: bool = True) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of the members with this extension; nothing else is read.

    `ended` as in `scan_members`.

    Raises:
        DataError: the shard is missing, cut short, damaged or unsafe.
    """
    with _open(path, 0) as file:
        for member in scan_members(file, path, ended=ended):
            parts = split_name(member.name)
            if parts is not None and parts[1] == extension:
                yield parts[0], read_exactly(file, member, path)


@dataclass(frozen=True)
class ShardIndex:
    """Offset and size of each member of a shard: about 16 bytes per member, and the key.

    `offsets` and `sizes` are (samples, extensions) int64; size -1 marks an absent member.
    """

    path: Path
    keys: NDArray[np.bytes_]
    extensions: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def scan(cls, path: Path, *, ended: bool = True) -> ShardIndex:
        """Index of the tar at `path`, from its headers alone; `ended` as in `scan_members`.

        Raises:
            DataError: the shard is missing, cut short, damaged or unsafe.
        """
        with _open(path, 0) as file:
            found = scan_members(file, path, ended=ended)
            contents = ((member.name, member) for member in found)
            samples = list(_group(contents, path))
        extensions = tuple(sorted({extension for _, members in samples for extension in members}))
        if len(extensions) > _MOST_EXTENSIONS:
            # The table below has a column for each.
            raise DataError(
                f"{path}: {len(extensions)} extensions ({', '.join(extensions[:3])}, ...): not a "
                "valid shard."
            )
        offsets = np.zeros((len(samples), len(extensions)), np.int64)
        sizes = np.full_like(offsets, -1)
        for row, (_, members) in enumerate(samples):
            for extension, member in members.items():
                column = extensions.index(extension)
                offsets[row, column], sizes[row, column] = member.offset, member.size
        keys = np.array([key.encode() for key, _ in samples], dtype=np.bytes_)
        return cls(path, keys, extensions, offsets, sizes)

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, row: int) -> str:
        """Key of sample `row`."""
        return bytes(self.keys[row]).decode()

    def members(self, row: int) -> dict[str, Member]:
        """Members of sample `row` by extension."""
        key = self.key(row)
        return {
            extension: Member(f"{key}.{extension}", int(offset), int(size))
            for extension, offset, size in zip(
                self.extensions, self.offsets[row], self.sizes[row], strict=True
            )
            if size >= 0
        }


def split_name(name: str) -> tuple[str, str] | None:
    """Key and lower-case extension of a member name; None for a file that has no extension."""
    directory, slash, file_name = name.rpartition("/")
    stem, dot, extension = file_name.partition(".")
    if not (stem and dot and extension):
        return None
    return directory + slash + stem, extension.lower()


def _open(path: Path, buffering: int) -> BinaryIO:
    try:
        return open_regular(path, buffering)
    except OSError as error:
        raise DataError(f"cannot open shard {path}: {error.strerror or error}.") from error


def _group(contents: Iterable[tuple[str, T]], path: Path) -> Iterator[tuple[str, dict[str, T]]]:
    """Consecutive members of one key as one mapping from extension to content."""
    seen: set[str] = set()
    current, members = "", dict[str, T]()
    for name, content in contents:
        parts = split_name(name)
        if parts is None:
            continue
        key, extension = parts
        if key != current:
            if members:
                yield current, members
            if key in seen:
                raise DataError(f"{path}: key {key} appears again after others: not a valid shard.")
            seen.add(key)
            current, members = key, {}
        if extension in members:
            raise DataError(f"{path}: {key} has two members {extension}: not a valid shard.")
        members[extension] = content
    if members:
        yield current, members
