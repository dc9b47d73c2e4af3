"""The index of a training's validation: which steps were judged, and which checkpoint is the best.

`validation/index.json` in the folder of the stage holds the images of the grids, where there are
any, and a row for each step that was judged; both are published at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hpc.documents import read_json
from hpc.publish import publish_json
from sarhpc.measures.score import SCORED, mean_log

_log = logging.getLogger(__name__)

FOLDER = "validation"
"""Folder of the index, in that of the stage."""
INDEX = "index.json"


class Choice(Protocol):
    """The settings of a judge, as far as they choose a checkpoint."""

    @property
    def choose(self) -> str:
        """What a training ends with: the `best` checkpoint, or the `last`."""


def read_index(folder: Path) -> dict[str, Any]:
    """`images` and `judged` of all steps that were validated; both empty without an index."""
    path = folder / INDEX
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return {"images": list(found.get("images", [])), "judged": list(found.get("judged", []))}


def publish_index(
    folder: Path,
    step: int,
    images: list[dict[str, Any]],
    judged: Mapping[str, float] | None,
) -> None:
    """Publish the index with `images` and the row of `step` in place of what it had of that step.

    Args:
        folder: of the index.
        step: steps done.
        images: entries of the images, each with its `step` and `path`.
        judged: the row without its `step`: `epoch`, what was measured and a `score`, less being
            better; None if it was not judged.
    """
    index = read_index(folder)
    entries = [entry for entry in index["images"] if entry["step"] != step] + images
    rows = [row for row in index["judged"] if row["step"] != step]
    if judged is not None:
        rows.append({"step": step, **judged})
    ordered = sorted(entries, key=lambda entry: (entry["step"], entry["path"]))
    publish_json(folder / INDEX, {"images": ordered, "judged": rows})


def read_judged(folder: Path) -> list[dict[str, Any]]:
    """Step, epoch, what was measured and `score` of all steps that were judged."""
    return list(read_index(folder)["judged"])


def best_first(folder: Path) -> list[int]:
    """Steps that were judged and trained at all, the best one first."""
    rows = [row for row in read_judged(folder) if row["step"] > 0]
    return [row["step"] for row in sorted(rows, key=lambda row: (_order(row), row["step"]))]


def best_steps(stage_folder: Path, judge: Choice | None) -> list[int]:
    """Steps whose checkpoints are kept as the best; none unless the best is chosen.

    These are the best one that exists, and any better one whose checkpoint is not saved yet.
    """
    if judge is None or judge.choose != "best":
        return []
    kept = []
    for step in best_first(stage_folder / FOLDER):
        kept.append(step)
        if _checkpoint(stage_folder, step).is_dir():
            break
    return kept


def chosen_checkpoint(stage_folder: Path, judge: Choice | None, last: Path) -> Path:
    """The checkpoint that training ends with: the best that exists, or the last one."""
    if judge is None or judge.choose != "best":
        return last
    for step in best_first(stage_folder / FOLDER):
        checkpoint = _checkpoint(stage_folder, step)
        if checkpoint.is_dir():
            _log.info("chosen checkpoint=%s of=%s", checkpoint.name, last.name)
            return checkpoint
    return last


def _checkpoint(stage_folder: Path, step: int) -> Path:
    return stage_folder / "checkpoints" / f"step_{step:08d}"


def _order(row: Mapping[str, Any]) -> float:
    # Versions differ in the zero of the score of grids, and a training may have been judged by two:
    # the distances behind it are comparable, as all grids have equally many images.
    return mean_log(row) if set(SCORED) <= set(row) else float(row["score"])
