"""Cleaning: files that nothing needs any more, with reason and size.

Files that a record names are never listed, nor are logs. Each removal is recorded before it happens
in `RUN/cleaned.jsonl` (promise P7: no deletion without a record).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import HpcError
from hpc.job.pipeline import Stage
from hpc.observe.status import RunStatus
from hpc.store.lease import live_holder
from hpc.store.ledger import STALE_FILE_AGE_S, Ledger
from hpc.store.rundir import RunDir, now

DORMANT = ("COMPLETE", "READY", "WAITING", "PARTIAL", "FAILED", "LOST")
"""States of a stage that no job or process works on or waits for."""
SUBMISSION_FILES = ("*_submitted.pkl", "*_result.pkl", "outcomes-*")
"""Patterns of files that a submission leaves among the logs for its jobs only."""


@dataclass(frozen=True)
class Removable:
    """One file or directory that can be removed, and why."""

    path: Path
    bytes: int
    files: int
    why: str


def find_removable(status: RunStatus, stages: Sequence[Stage], data: Path) -> list[Removable]:
    """Files of a run that can be removed in the state that `status` describes.

    Args:
        status: of the run; stages that run or wait are skipped, and so are submission files if the
            queue did not answer.
        stages: of the run.
        data: folder of its archive and shards.
    """
    run = status.run
    states = {stage.disk.name: stage.state for stage in status.stages}
    idle = [stage.name for stage in stages if states[stage.name] in DORMANT]
    known = not status.notes
    found: list[tuple[Path, str]] = []
    for name in idle:
        directory = run.stage(name)
        found += _temporaries([directory, directory / "failed"])
        found += _superseded_checkpoints(run.ledger(name), directory / "checkpoints")
        found += _stale_leases(directory)
        found += _submission_files(run.logs(name)) if known else []
    if len(idle) == len(stages):
        found += _temporaries([run.root, *_folders(data)])
        found += _submission_files(run.logs("")) if known else []
        found += [
            (path, "of a Dask cluster that has ended") for path in (run.root / "dask").glob("*")
        ]
    sized = {path: _sized(path, why) for path, why in found}
    return list(sized.values())


def _folders(data: Path) -> list[Path]:
    """`data` and the folders below it, three levels deep: archive, sets, splits."""
    if not data.is_dir():
        return []
    patterns = ("*/", "*/*/", "*/*/*/")
    return [data, *(path for pattern in patterns for path in data.glob(pattern) if path.is_dir())]


def _old(folder: Path, patterns: Sequence[str], why: str) -> Iterator[tuple[Path, str]]:
    """Matches in `folder` that have not changed for an hour, as a job may be about to start."""
    limit = time.time() - STALE_FILE_AGE_S
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.lstat().st_mtime <= limit:
                yield path, why


def _temporaries(folders: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        yield from _old(folder, [".*.tmp"], "left by a killed writer")


def _superseded_checkpoints(ledger: Ledger, folder: Path) -> Iterator[tuple[Path, str]]:
    """Incomplete and damaged checkpoints; once the stage is sealed, all but the recorded one.

    A stage whose record names a model instead needs none of its checkpoints any more.
    """
    for pattern in (".staging-*", ".trash-*"):
        yield from ((path, "incomplete or partly deleted") for path in folder.glob(pattern))
    if not ledger.sealed:
        return
    kept = {Path(record.path) for record in ledger.records().values()}
    # If the recorded artefact is missing, the others may still be needed.
    if not any(path.is_dir() for path in kept):
        return
    for path in folder.glob("step_*"):
        if path not in kept:
            damaged = ".bad" in path.name
            yield path, "a damaged checkpoint" if damaged else "not the recorded checkpoint"


def _stale_leases(directory: Path) -> Iterator[tuple[Path, str]]:
    for path in directory.glob(".lease*.json"):
        if live_holder(path) is None:
            yield path, "lease of a process that has ended"


def _submission_files(logs: Path) -> Iterator[tuple[Path, str]]:
    return _old(logs, SUBMISSION_FILES, "submission file of a job that has ended")


def _sized(path: Path, why: str) -> Removable:
    if not path.is_dir() or path.is_symlink():
        return Removable(path, path.lstat().st_size, 1, why)
    sizes = [
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    ]
    return Removable(path, sum(sizes), len(sizes), why)


def remove_files(run: RunDir, removable: Sequence[Removable]) -> None:
    """Remove the files, each recorded in `cleaned.jsonl` first.

    Raises:
        HpcError: some could not be removed; the others are removed.
    """
    kept = []
    with (run.root / "cleaned.jsonl").open("a") as notes:
        for piece in removable:
            row = {"path": str(piece.path), "bytes": piece.bytes, "why": piece.why, "when": now()}
            notes.write(json.dumps(row) + "\n")
            notes.flush()
            try:
                _remove(piece.path)
            except OSError as error:
                kept.append(f"{piece.path}: {error.strerror}")
    if kept:
        raise HpcError(f"not removed: {'; '.join(kept[:5])}; check their permissions")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # Renamed first: a partly deleted checkpoint must not look like a valid one.
        trash = path.with_name(f".trash-{path.name}")
        os.replace(path, trash)
        shutil.rmtree(trash)
    else:
        path.unlink(missing_ok=True)


def removable_lines(removable: Sequence[Removable]) -> list[str]:
    """One line per folder and reason, largest first."""
    groups: dict[tuple[Path, str], list[Removable]] = {}
    for piece in removable:
        groups.setdefault((piece.path.parent, piece.why), []).append(piece)
    lines = []
    for (folder, why), pieces in sorted(
        groups.items(), key=lambda item: -sum(piece.bytes for piece in item[1])
    ):
        names = ", ".join(piece.path.name for piece in pieces[:2])
        more = f" and {len(pieces) - 2} more" if len(pieces) > 2 else ""
        size = size_text(sum(piece.bytes for piece in pieces))
        lines.append(f"{size:>8}  {folder}: {names}{more} ({why})")
    return lines


def size_text(number: int) -> str:
    """A number of bytes with a unit: `812 B`, `3.4 MB`, `1.2 TB`."""
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
