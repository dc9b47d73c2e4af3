"""Samples of many shards by number: the map-style set that training draws from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.shards.images import decode_gray8, decode_rgb8
from sarhpc.shards.reader import ShardIndex
from sarhpc.shards.sample import Sample, decode_meta
from sarhpc.shards.tar import Member

_CAPTION_LENGTHS = ("SHORT", "MID", "LONG")


def find_shards(root: Path, split: str) -> list[Path]:
    """Published shards of `<root>/<split>`, by name. Where records exist, take their paths instead.

    Raises:
        DataError: there are none.
    """
    shards = sorted((root / split).glob("*.tar"))
    if not shards:
        raise DataError(f"no shards in {root / split}: tile an archive first, or name its folder.")
    return shards


class ShardedSamples:
    """All samples of `shards`, numbered in shard order; read at random through an index.

    Safe with threads, fork and spawn: reads name their offset, so no file position is shared, and
    a copy sent to another process opens its own files. At most `handles` files are kept open.
    """

    def __init__(self, shards: Sequence[Path], *, handles: int = 64) -> None:
        """Index `shards`, reading their headers.

        Raises:
            DataError: a shard is missing, cut short, damaged or unsafe.
        """
        self._indexes = [ShardIndex.scan(Path(path)) for path in shards]
        self._ends = np.cumsum([len(index) for index in self._indexes], dtype=np.int64)
        self._handles = handles
        self._files: dict[Path, _ShardFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> Sample:
        """Sample `number` with all its members."""
        index, row = self._locate(number)
        members = index.members(row)
        return Sample(
            index.key(row),
            {name: self._read(index.path, at) for name, at in members.items()},
            index.path,
        )

    def key(self, number: int) -> str:
        """Key of sample `number`."""
        index, row = self._locate(number)
        return index.key(row)

    def member(self, number: int, extension: str) -> bytes | None:
        """Bytes of one member of sample `number`, or None without it; nothing else is read."""
        index, row = self._locate(number)
        at = index.members(row).get(extension)
        return None if at is None else self._read(index.path, at)

    def load(
        self, number: int, image_member: str = "sar.png", caption: str | None = "txt"
    ) -> tuple[NDArray[np.float32], str]:
        """Image (H, W, 3) float32 in [-1, 1], gray repeated over the channels, and its caption.

        The image may be read-only.

        `caption` is `txt`, or SHORT, MID or LONG to take that length from `meta.json`, where
        public sets keep them; None gives the empty caption.

        Raises:
            DataError: the sample lacks the image or the caption, or they cannot be decoded.
        """
        data = self.encoded(number, image_member)
        decode = decode_rgb8 if image_member.startswith(("optic", "segmentation")) else decode_gray8
        pixels = decode(data).astype(np.float32) / np.float32(127.5) - np.float32(1)
        if pixels.ndim == 2:
            # A view: whoever copies it reads a third of what three channels take.
            pixels = np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3))
        return pixels, "" if caption is None else self.caption(number, caption)

    def encoded(self, number: int, image_member: str) -> bytes:
        """The image as it is stored.

        Raises:
            DataError: the sample lacks it.
        """
        return self._require(number, image_member)

    def caption(self, number: int, source: str = "txt") -> str:
        """The caption alone; `source` and errors as of `load`."""
        index, _ = self._locate(number)
        if source not in _CAPTION_LENGTHS:
            data = self._require(number, source)
            return Sample(self.key(number), {"txt": data}, index.path).caption or ""
        meta = decode_meta(self._require(number, "meta.json"), self.key(number), index.path)
        captions = meta.get("caption")
        text = captions.get(source) if isinstance(captions, dict) else None
        if not text:
            raise DataError(f"sample {self.key(number)} has no {source} caption in meta.json.")
        return str(text)

    def _require(self, number: int, extension: str) -> bytes:
        data = self.member(number, extension)
        if data is None:
            index, row = self._locate(number)
            hint = " Caption the shards first." if extension == "txt" else ""
            raise DataError(
                f"sample {index.key(row)} of {index.path} has no member {extension}: it has "
                f"{', '.join(index.members(row))}.{hint}"
            )
        return data

    def _locate(self, number: int) -> tuple[ShardIndex, int]:
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = int(np.searchsorted(self._ends, number, side="right"))
        index = self._indexes[shard]
        return index, number - int(self._ends[shard]) + len(index)

    def _read(self, path: Path, member: Member) -> bytes:
        # No lock: a thread keeps the file it took alive, and the last one to let go closes it.
        file = self._files.pop(path, None) or _ShardFile(path)
        self._files[path] = file
        for oldest in list(self._files)[: -self._handles]:
            self._files.pop(oldest, None)
        return file.read(member)


class _ShardFile:
    """An open shard, closed when the last reference goes."""

    # Kept here: the interpreter empties modules before it ends, and caches live until then.
    _close = staticmethod(os.close)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"cannot open shard {path}: {error.strerror}.") from error

    def __del__(self) -> None:
        if self.descriptor >= 0:
            self._close(self.descriptor)

    def read(self, member: Member) -> bytes:
        """Bytes of a member, from its own offset."""
        data = os.pread(self.descriptor, member.size, member.offset)
        if len(data) != member.size:
            raise DataError(f"{self.path} lost bytes since it was indexed: copy or make it again.")
        return data
