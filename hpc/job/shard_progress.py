"""How far the shards under way are: what `status` shows of a shard that takes minutes.

`<stage>/progress/<host>-<pid>.json` of each worker process, replaced at most every few seconds and
removed with the end of the shard. The first shard of a worker has one only if it takes that long. A
killed worker leaves its file, which readers recognise and the next worker there removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from hpc.documents import built, parse_json
from hpc.publish import temporary_path
from hpc.regular_files import read_regular
from hpc.store.identity import Identity, is_alive, own_identity

FOLDER = "progress"
WRITE_EVERY_S = 5.0
SCHEMA = "sarhpc.progress/1"
MAX_BYTES = 1 << 12

_Item = TypeVar("_Item")

# A worker whose shards take seconds or more shows the next one from its first sample.
_slow_workers: set[int] = set()


@dataclass(frozen=True)
class Devices:
    """What one worker computes on."""

    gpus: int = 0
    cores: int = 0
    """CPU cores that are its own; counted only where it has no GPU."""


@dataclass(frozen=True)
class ShardUnderWay:
    """One shard that is being made."""

    shard: str
    done: int
    """Samples made so far."""
    goal: int | None
    """Samples at which it ends, or fewer if some are rejected; None if unknown."""
    seconds: float
    """Since it began."""
    pause_s: float = 0.0
    """Longest time between two samples so far, s."""
    devices: Devices = Devices()
    worker: Identity | None = None
    """The process that makes it."""
    schema: str = SCHEMA


def counted(
    items: Iterable[_Item],
    stage: Path,
    shard: str,
    goal: int | None = None,
    devices: Devices | None = None,
) -> Iterator[_Item]:
    """`items`, and while they are iterated the number of those so far in the `stage` folder.

    Args:
        items: samples of a shard, made while they are iterated.
        stage: directory of the stage.
        shard: id of the shard.
        goal: samples at which it ends; None if unknown.
        devices: what makes them; None where samples per GPU-hour are not asked for.
    """
    path = stage / FOLDER / f"{socket.gethostname()}-{os.getpid()}.json"
    began = last = time.monotonic()
    written = float("-inf") if os.getpid() in _slow_workers else began
    state = ShardUnderWay(shard, 0, goal, 0.0, devices=devices or Devices())
    try:
        for item in items:
            clock = time.monotonic()
            pause_s = max(state.pause_s, round(clock - last, 1))
            state = dataclasses.replace(
                state, done=state.done + 1, seconds=round(clock - began, 1), pause_s=pause_s
            )
            last = clock
            if clock - written >= WRITE_EVERY_S:
                written = clock
                if state.worker is None:
                    state = dataclasses.replace(state, worker=own_identity())
                    _slow_workers.add(os.getpid())
                    _remove_dead(path.parent)
                _write(path, state)
            yield item
    finally:
        if state.worker is not None:
            with contextlib.suppress(OSError):
                path.unlink()


def read_under_way(path: Path) -> ShardUnderWay | None:
    """What a worker published in `path`; None of a file that is gone or damaged."""
    try:
        return built(ShardUnderWay, parse_json(read_regular(path, MAX_BYTES).decode()))
    except (OSError, ValueError):
        return None


def remove_progress(stage: Path) -> None:
    """Remove what killed workers left, once the stage is sealed."""
    shutil.rmtree(stage / FOLDER, ignore_errors=True)


def _remove_dead(folder: Path) -> None:
    """Remove the files of workers that are known to be dead here."""
    for path in folder.glob("*.json"):
        found = read_under_way(path)
        if found is not None and found.worker is not None and is_alive(found.worker) is False:
            with contextlib.suppress(OSError):
                path.unlink()


def _write(path: Path, progress: ShardUnderWay) -> None:
    """Show `progress`; a full or failed disk is reported by the files that must be written."""
    # Not fsynced on purpose: worthless after a crash, and rewritten within seconds.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path)
        temporary.write_text(json.dumps(asdict(progress)) + "\n")
        os.replace(temporary, path)
