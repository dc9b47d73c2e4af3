"""The index of validation grids: their images, which are finished, how they were judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.publish import publish_json
from sarhpc.measures.score import SCORED, mean_log
from sarhpc.training.config import TrainConfig

INDEX = "index.json"


@dataclass(frozen=True)
class GridImage:
    """One image of a grid."""

    step: int
    epoch: int
    prompt: str
    seed: int
    path: str
    """Relative to the index."""


def planned(cfg: TrainConfig, step: int, epoch: int) -> list[GridImage]:
    """The images of the grid of `step`, prompt by prompt."""
    return [
        GridImage(step, epoch, prompt, seed, f"step_{step:08d}/p{number:02d}_s{seed}.png")
        for number, prompt in enumerate(cfg.validation_prompts)
        for seed in cfg.validation_seeds
    ]


def is_finished(folder: Path, step: int) -> bool:
    """Whether the grid of `step` is in the index."""
    return any(image["step"] == step for image in read_index(folder))


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Images of all finished grids, by step."""
    index = folder / INDEX
    return list(json.loads(index.read_text())["images"]) if index.is_file() else []


def enter_in_index(
    folder: Path, images: list[GridImage], judged: Mapping[str, float] | None = None
) -> None:
    """Publish the index with a finished grid in it, and what was judged of it."""
    steps = {image.step for image in images}
    others = [image for image in read_index(folder) if image["step"] not in steps]
    entries = sorted(
        others + [asdict(image) for image in images],
        key=lambda entry: (entry["step"], entry["path"]),
    )
    verdicts = [row for row in read_judged(folder) if row["step"] not in steps]
    if judged is not None:
        verdicts.append({"step": images[0].step, "epoch": images[0].epoch, **judged})
    publish_json(folder / INDEX, {"images": entries, "judged": verdicts})


def read_judged(folder: Path) -> list[dict[str, Any]]:
    """Step, epoch, distances and `score` of all grids that were judged, by step."""
    index = folder / INDEX
    return list(json.loads(index.read_text()).get("judged", [])) if index.is_file() else []


def best_first(folder: Path) -> list[int]:
    """Steps that were judged and trained at all, the one nearest to the real tiles first."""
    rows = [row for row in read_judged(folder) if row["step"] > 0]
    return [row["step"] for row in sorted(rows, key=lambda row: (_nearness(row), row["step"]))]


def _nearness(row: Mapping[str, Any]) -> float:
    # Versions differ in the zero of the score, and a training may have been judged by two: the
    # distances behind it are comparable, as all grids have equally many images.
    return mean_log(row) if set(SCORED) <= set(row) else float(row["score"])
