"""The manifest of a checkpoint: its files with sizes and digests, to verify them.

A directory `step_00000120` is a checkpoint if its MANIFEST.json matches the files beside it.
Nothing else counts, neither the directory's name nor the `latest` file.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.documents import built, read_json
from hpc.errors import VerificationError
from hpc.publish import Digest, digest_file

MANIFEST = "MANIFEST.json"
SCHEMA = "hpc.checkpoint/1"
_log = logging.getLogger(__name__)
_STEP_NAME = re.compile(r"step_(\d{8,})")


@dataclass(frozen=True)
class Manifest:
    """Content of a checkpoint."""

    step: int
    """Optimiser steps done when it was taken."""
    world_size: int
    """Ranks that wrote it."""
    attempt: int
    """Attempt of the job that wrote it."""
    created: float
    """Seconds since the epoch."""
    state: Mapping[str, Any]
    """Rank 0's small state (data position, seeds, fingerprints) as JSON values."""
    files: Mapping[str, Digest]
    """Size and SHA-256 of every file, by path relative to the checkpoint."""

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(digest.bytes for digest in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """The manifest as it is published."""
        files = {
            name: {"bytes": digest.bytes, "sha256": digest.sha256}
            for name, digest in sorted(self.files.items())
        }
        return {
            "schema": SCHEMA,
            "step": self.step,
            "world_size": self.world_size,
            "attempt": self.attempt,
            "created": self.created,
            "state": dict(self.state),
            "bytes": self.bytes,
            "files": files,
        }


@dataclass(frozen=True)
class Checkpoint:
    """One step directory as found on disk."""

    step: int
    path: Path
    manifest: Manifest | None
    """None if it has no readable manifest."""
    problem: str | None
    """Description of the first failed check; None if all requested checks passed."""


def step_directory(root: Path, step: int) -> Path:
    """Where the checkpoint of `step` lives."""
    return root / f"step_{step:08d}"


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint directory.

    Raises:
        VerificationError: it is missing, unreadable or of another schema.
    """
    path = directory / MANIFEST
    try:
        text = read_json(path)
        if text["schema"] != SCHEMA:
            raise VerificationError(f"{path} has schema {text['schema']!r}, not {SCHEMA!r}")
        files = {name: built(Digest, digest) for name, digest in text["files"].items()}
        return Manifest(
            step=int(text["step"]),
            world_size=int(text["world_size"]),
            attempt=int(text["attempt"]),
            created=float(text["created"]),
            state=dict(text["state"]),
            files=files,
        )
    except FileNotFoundError as error:
        raise VerificationError(f"{directory} has no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise VerificationError(f"{path} cannot be read: {error!r}") from error


def find_problem(directory: Path, files: Mapping[str, Digest], deep: bool) -> str | None:
    """Description of the first file that is missing or differs; None if all match.

    Sizes are always compared, SHA-256 only if `deep`. Additional files are ignored: nothing reads
    them.
    """
    for name, expected in files.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != expected.bytes:
            return f"{name} has {size} bytes, not {expected.bytes}"
        if deep and digest_file(path).sha256 != expected.sha256:
            return f"{name} has another SHA-256 than when it was written"
    return None


def list_checkpoints(root: Path, deep: bool = False) -> tuple[Checkpoint, ...]:
    """Every step directory under `root`, newest first, each with its problem if it has one."""
    if not root.is_dir():
        return ()
    steps = {
        int(match[1]): path
        for path in root.iterdir()
        if (match := _STEP_NAME.fullmatch(path.name)) and path.is_dir()
    }
    return tuple(_inspect(step, steps[step], deep) for step in sorted(steps, reverse=True))


def _inspect(step: int, path: Path, deep: bool) -> Checkpoint:
    try:
        manifest = read_manifest(path)
    except VerificationError as error:
        return Checkpoint(step, path, None, str(error))
    if manifest.step != step:
        return Checkpoint(step, path, manifest, f"its manifest is of step {manifest.step}")
    return Checkpoint(step, path, manifest, find_problem(path, manifest.files, deep))


def set_aside(path: Path, problem: str) -> None:
    """Rename a step directory that must not be loaded to `step_<step>.bad`, or `.bad-2` and on."""
    names = itertools.chain([".bad"], (f".bad-{n}" for n in itertools.count(2)))
    aside = next(
        candidate
        for candidate in (path.with_name(path.name + suffix) for suffix in names)
        if not candidate.exists()
    )
    os.replace(path, aside)
    _log.warning("checkpoint set aside path=%s problem=%s", aside, problem)


def digest_files(directory: Path, paths: Iterable[Path]) -> dict[str, Digest]:
    """Size and SHA-256 of each of `paths`, by path relative to `directory`."""
    return {path.relative_to(directory).as_posix(): digest_file(path) for path in paths}


def files_under(directory: Path) -> list[Path]:
    """Every regular file below `directory`, in sorted order, without the manifest."""
    return sorted(
        path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST
    )
