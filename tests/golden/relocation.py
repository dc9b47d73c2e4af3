"""A run directory that was moved: the same run, with the paths and plan ids of its new place.

Records and plans name what they are of by absolute paths, and the id of a plan is a digest of its
text, paths included. Works on files alone, so that it does not change with the program.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

STORED_AT = "/stored-run"
"""Stands for the folder above the run in the files of a stored one."""


def relocate(run: Path, old: str, new: str) -> None:
    """Replace the path `old` by `new` in every text file below `run`, and ids of plans with it."""
    for path in _texts(run):
        _replace(path, old, new, of_plan=path.name == "plan.json")


def _replace(path: Path, old: str, new: str, *, of_plan: bool) -> None:
    before = path.read_text()
    after = before.replace(old, new)
    if after == before:
        return
    path.write_text(after)
    if of_plan:
        for other in _texts(path.parent):
            text = other.read_text()
            other.write_text(text.replace(_plan_id(before), _plan_id(after)))


def _plan_id(text: str) -> str:
    # Lines are broken for a reader only; the id is that of the document on one line.
    return hashlib.sha256(text.replace("\n", "").encode()).hexdigest()[:16]


def _texts(folder: Path) -> list[Path]:
    kinds = {".json", ".jsonl", ".yaml", ".txt"}
    return sorted(path for path in folder.rglob("*") if path.suffix in kinds and path.is_file())
