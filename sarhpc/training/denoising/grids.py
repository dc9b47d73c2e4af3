"""The images of validation grids, and which grids are finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sarhpc.training import judged
from sarhpc.training.config import TrainConfig
from sarhpc.training.judged import read_judged as read_judged  # of grids


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
    return list(judged.read_index(folder)["images"])


def enter_in_index(
    folder: Path, images: list[GridImage], found: Mapping[str, float] | None = None
) -> None:
    """Publish the index with a finished grid in it, and what its judge `found`."""
    step, epoch = images[0].step, images[0].epoch
    row = None if found is None else {"epoch": epoch, **found}
    judged.publish_index(folder, step, [asdict(image) for image in images], row)
