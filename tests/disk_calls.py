"""What a piece of code makes durable and puts in place, in the order in which it does."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class DiskCall:
    """One call: `fsync` of a path, `replace` of one path by another, or `rmtree` of a path."""

    name: str
    path: Path
    """What was synced, removed, or took the other's name."""
    target: Path | None = None
    """The name it took."""
    size: int = 0
    """Bytes of the file when it was synced."""


@dataclass
class DiskCalls:
    """The calls since `record_disk_calls`, oldest first."""

    found: list[DiskCall] = field(default_factory=list)

    def names(self) -> list[tuple[str, str]]:
        """(call, last part of the path or of the new name) of each."""
        return [(call.name, (call.target or call.path).name) for call in self.found]

    def at(self, name: str, path: Path) -> int:
        """Place of the one call of that name which syncs, removes or creates `path`."""
        places = [
            place
            for place, call in enumerate(self.found)
            if call.name == name and (call.target or call.path) == path
        ]
        assert len(places) == 1, f"{name} of {path}: {self.names()}"
        return places[0]


def record_disk_calls(monkeypatch: pytest.MonkeyPatch) -> DiskCalls:
    """Let `os.fsync`, `os.replace` and `shutil.rmtree` work as they do, and write them down."""
    calls = DiskCalls()
    fsync, replace, rmtree = os.fsync, os.replace, shutil.rmtree

    def synced(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        calls.found.append(DiskCall("fsync", path, size=os.fstat(descriptor).st_size))
        fsync(descriptor)

    def replaced(source: Any, target: Any) -> None:
        calls.found.append(DiskCall("replace", Path(source), Path(target)))
        replace(source, target)

    def removed(path: Any, *words: Any, **options: Any) -> None:
        if Path(path).exists():
            calls.found.append(DiskCall("rmtree", Path(path)))
        rmtree(path, *words, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(shutil, "rmtree", removed)
    return calls
