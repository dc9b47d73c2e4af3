"""A sample: tile, caption and metadata under one key, as members of a shard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.documents import parse_json
from hpc.errors import DataError

SAMPLE_SCHEMA = "sarhpc.sample/1"
SPLITS = ("train", "val", "test")


def sample_key(shard: int, index: int) -> str:
    """Key of sample `index` of `shard`: eleven digits, unique over the whole set."""
    return f"{shard:06d}{index:05d}"


@dataclass(frozen=True)
class Sample:
    """Members of one sample by extension, for example `sar.png`, `meta.json`, `txt`."""

    key: str
    members: Mapping[str, bytes]
    path: Path | None = field(default=None, compare=False, repr=False)
    """Shard it was read from, for messages."""

    @property
    def meta(self) -> dict[str, Any]:
        """Decoded `meta.json`.

        Raises:
            DataError: there is none, or it is no JSON object.
        """
        return decode_meta(self.members.get("meta.json"), self.key, self.path)

    @property
    def caption(self) -> str | None:
        """Text of the `txt` member, or None before captioning.

        Raises:
            DataError: it is not UTF-8.
        """
        text = self.members.get("txt")
        try:
            return None if text is None else text.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"txt of sample {_at(self.key, self.path)} is no UTF-8 text ({error})."
            ) from error

    def with_members(self, **members: bytes) -> Sample:
        """The same sample with members added or replaced; `__` in a name stands for a dot."""
        named = {name.replace("__", "."): data for name, data in members.items()}
        return Sample(self.key, {**self.members, **named}, self.path)


def _at(key: str, path: Path | None) -> str:
    return key if path is None else f"{key} in {path}"


def decode_meta(data: bytes | None, key: str, path: Path | None = None) -> dict[str, Any]:
    """The metadata in a member `meta.json` of sample `key`, of the shard `path` if that is known.

    Raises:
        DataError: there is none, or it is no JSON object.
    """
    if data is None:
        raise DataError(f"sample {_at(key, path)} has no member meta.json; make its shard again.")
    try:
        meta = parse_json(data)
    except ValueError as error:
        raise DataError(f"meta.json of sample {_at(key, path)} is no JSON ({error}).") from error
    if not isinstance(meta, dict):
        raise DataError(
            f"meta.json of sample {_at(key, path)} is no JSON object; make its shard again."
        )
    return meta


def encode_json(value: Any) -> bytes:
    """Canonical JSON bytes: sorted keys, so that equal content is equal bytes."""
    return (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode()
