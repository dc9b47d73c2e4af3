"""Reads what an offline run of W&B holds; the package itself only writes such files now."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEAD = 32768, 7


def records(path: Path) -> Iterator[Any]:
    """The records of a run's file: blocks of chunks, each with checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, gathered = path.read_bytes(), HEAD, b""
    assert data[:4] == b":W&B"
    while at + HEAD <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEAD:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEAD])
        gathered += data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (1, 4):  # whole, or the last of several
            record = Record()
            record.ParseFromString(gathered)
            yield record
            gathered = b""


def run_file(folder: Path) -> Path:
    [path] = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    return path


def history(folder: Path) -> list[dict[str, Any]]:
    """What was logged, by step."""
    found = [record.history for record in records(run_file(folder)) if record.HasField("history")]
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in each.item}
        for each in found
    ]
