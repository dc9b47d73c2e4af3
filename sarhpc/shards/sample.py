"""A sample: tile, caption and metadata under one key, as members of a shard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

    @property
    def meta(self) -> dict[str, Any]:
        """Decoded `meta.json`."""
        return json.loads(self.members["meta.json"])  # type: ignore[no-any-return]

    @property
    def caption(self) -> str | None:
        """Text of the `txt` member, or None before captioning."""
        text = self.members.get("txt")
        return None if text is None else text.decode()

    def with_members(self, **members: bytes) -> Sample:
        """The same sample with members added or replaced; `__` in a name stands for a dot."""
        named = {name.replace("__", "."): data for name, data in members.items()}
        return Sample(self.key, {**self.members, **named})


def encode_json(value: Any) -> bytes:
    """Canonical JSON bytes: sorted keys, so that equal content is equal bytes."""
    return (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode()
