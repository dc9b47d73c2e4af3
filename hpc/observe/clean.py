"""Cleaning: what nothing needs any more, why, and how much of it there is.

Nothing that a record names is ever listed, and no log. What is removed is noted before in
`RUN/cleaned.jsonl` (promise P7: no deletion without a record).
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
"""States of a stage without a job or a process that works or waits for it."""
HANDED_OVER = ("*_submitted.pkl", "*_result.pkl", "outcomes-*")
"""What a submission leaves among the logs for its jobs alone."""


@dataclass(frozen=True)
class Litter:
    """One file or folder that may go."""

    path: Path
    bytes: int
    files: int
    why: str


def find_litter(status: RunStatus, stages: Sequence[Stage], data: Path) -> list[Litter]:
    """What may go of a run whose stages stand as `status` says.

    Args:
        status: of the run; stages that work or wait are passed over, and so are jobs' hand-overs
            where the queue gave no answer.
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
        found += _of_killed_writers([directory, directory / "failed"])
        found += _of_checkpoints(run.ledger(name), directory / "checkpoints")
        found += _stale_leases(directory)
        found += _of_submissions(run.logs(name)) if known else []
    if len(idle) == len(stages):
        found += _of_killed_writers([run.root, *_folders(data)])
        found += _of_submissions(run.logs("")) if known else []
        found += [
            (path, "of a Dask cluster that is gone") for path in (run.root / "dask").glob("*")
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
    """What matches in `folder` and has not changed for an hour: a job may be about to start."""
    limit = time.time() - STALE_FILE_AGE_S
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.lstat().st_mtime <= limit:
                yield path, why


def _of_killed_writers(folders: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        yield from _old(folder, [".*.tmp"], "left by a killed writer")


def _of_checkpoints(ledger: Ledger, folder: Path) -> Iterator[tuple[Path, str]]:
    """Half-made and damaged checkpoints; once the stage is sealed, all but the one recorded.

    Of a stage that has something else on record, a model, no checkpoint is needed any more.
    """
    for pattern in (".staging-*", ".trash-*"):
        yield from ((path, "half made or half deleted") for path in folder.glob(pattern))
    if not ledger.sealed:
        return
    kept = {Path(record.path) for record in ledger.records().values()}
    # Without what is recorded there is nothing that the others would be superfluous to.
    if not any(path.is_dir() for path in kept):
        return
    for path in folder.glob("step_*"):
        if path not in kept:
            damaged = ".bad" in path.name
            yield path, "a damaged checkpoint" if damaged else "not the checkpoint on record"


def _stale_leases(directory: Path) -> Iterator[tuple[Path, str]]:
    for path in directory.glob(".lease*.json"):
        if live_holder(path) is None:
            yield path, "lease of a process that is gone"


def _of_submissions(logs: Path) -> Iterator[tuple[Path, str]]:
    return _old(logs, HANDED_OVER, "handed to a job that has ended")


def _sized(path: Path, why: str) -> Litter:
    if not path.is_dir() or path.is_symlink():
        return Litter(path, path.lstat().st_size, 1, why)
    sizes = [
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    ]
    return Litter(path, sum(sizes), len(sizes), why)


def remove_litter(run: RunDir, litter: Sequence[Litter]) -> None:
    """Remove it, each piece noted in `cleaned.jsonl` before it goes.

    Raises:
        HpcError: something could not be removed; the rest is gone.
    """
    refused = []
    with (run.root / "cleaned.jsonl").open("a") as notes:
        for piece in litter:
            row = {"path": str(piece.path), "bytes": piece.bytes, "why": piece.why, "when": now()}
            notes.write(json.dumps(row) + "\n")
            notes.flush()
            try:
                _remove(piece.path)
            except OSError as error:
                refused.append(f"{piece.path}: {error.strerror}")
    if refused:
        raise HpcError(f"not removed: {'; '.join(refused[:5])}; look at their permissions")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # The rename takes validity away first: half a checkpoint must not look like one.
        trash = path.with_name(f".trash-{path.name}")
        os.replace(path, trash)
        shutil.rmtree(trash)
    else:
        path.unlink(missing_ok=True)


def litter_lines(litter: Sequence[Litter]) -> list[str]:
    """One line for each reason in each folder, largest first."""
    groups: dict[tuple[Path, str], list[Litter]] = {}
    for piece in litter:
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
    """A number of bytes that reads well: `812 B`, `3.4 MB`, `1.2 TB`."""
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
