"""Paths in plans and records: relative to the run directory if inside it, else absolute.

So a run directory that was moved still finds its artefacts, and a copy has artefacts of its own.
Runs of version 0.1 have absolute paths only, and no note of where they were made. That directory
follows from an artefact that is still here: `/old/RUN/train/x` is the file `train/x` of this run.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hpc.documents import read_json
from hpc.errors import ConfigError
from hpc.regular_files import read_regular_text

_RECORDED = re.compile(r'"path": ?"(/(?:[^"\\]|\\.)*)"')


def require_plain_path(path: Path) -> None:
    r"""Raise ConfigError if jobs cannot work in `path`, because it has a character with a meaning.

    `%` and `\` are replaced by Slurm in the names of logs; `:` separates the entries of
    PYTHONPATH, so that jobs would import other code than the snapshot in the run.
    """
    text = str(path)
    wrong = [character for character in ":%\\" if character in text]
    if wrong or not text.isprintable():
        what = " and ".join(map(repr, wrong)) or "a control character"
        raise ConfigError(
            f"{text!r} contains {what}, which Slurm and PYTHONPATH read as something else than a "
            "name; use another run name or directory"
        )


def stored_path(root: Path, path: str | Path) -> str:
    """`path` as plans and records of the run at `root` hold it."""
    normal = Path(os.path.normpath(path))
    return normal.relative_to(root).as_posix() if normal.is_relative_to(root) else str(path)


def located_path(root: Path, stored: str) -> Path:
    """Where the artefact is that a plan or a record of the run at `root` holds as `stored`."""
    if not os.path.isabs(stored):
        return root / stored
    path = Path(os.path.normpath(stored))
    if path.is_relative_to(root):
        return path
    for former in _former_roots(root):
        if path.is_relative_to(former):
            return root / path.relative_to(former)
    return path


@functools.lru_cache(maxsize=16)
def _former_roots(root: Path) -> tuple[Path, ...]:
    """Directories in which artefacts of this run were made, by the name that it began with."""
    try:
        name = str(read_json(root / "run.json")["name"])
    except (OSError, ValueError, KeyError):
        return ()
    found: dict[Path, None] = {}
    for path in _absolute_paths(root):
        if path.is_relative_to(root) or any(path.is_relative_to(known) for known in found):
            continue
        for former in path.parents:
            # Data outside the run may lie below a directory of its name too: the file decides.
            if former.name == name and (root / path.relative_to(former)).exists():
                found[former] = None
                break
    return tuple(found)


def _absolute_paths(root: Path) -> Iterator[Path]:
    """The absolute paths in the records of every stage."""
    for pattern in ("*/manifest.jsonl", "*/records/*/[0-9]*.json"):
        for file in sorted(root.glob(pattern)):
            try:
                texts = _RECORDED.findall(read_regular_text(file))
            except OSError:  # sealed meanwhile
                continue
            yield from (Path(os.path.normpath(json.loads(f'"{text}"'))) for text in texts)
