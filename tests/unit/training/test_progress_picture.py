"""The course of a training is one picture: prompts down, steps across."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.grids import GridImage, enter_in_index, planned
from sarhpc.training.denoising.progress import MOST_COLUMNS, draw_progress

CFG = TrainConfig(validation_prompts=["calm water", "a dense town"], validation_seeds=[7, 3])
LEFT, TOP, GAP = 160, 36, 4


def paint(folder: Path, step: int, px: int) -> list[GridImage]:
    """A grid whose images have a level of their own: of prompt, seed and step."""
    images = planned(CFG, step, epoch=step // 10)
    for image in images:
        path = folder / image.path
        path.parent.mkdir(parents=True, exist_ok=True)
        level = 100 * CFG.validation_prompts.index(image.prompt) + image.seed + step
        Image.new("RGB", (px, px), (level, level, level)).save(path)
    return images


def cells(picture: Path, shape: tuple[int, int], px: int) -> NDArray[np.uint8]:
    """What stands in the middle of each cell."""
    drawn = np.asarray(Image.open(picture))
    assert drawn.shape == (TOP + shape[0] * (px + GAP), LEFT + shape[1] * (px + GAP))
    rows, columns = ([px // 2 + number * (px + GAP) for number in range(n)] for n in shape)
    return drawn[np.ix_([TOP + row for row in rows], [LEFT + column for column in columns])]


def draw(folder: Path, steps: list[int], px: int) -> Path:
    for step in steps:
        images = paint(folder, step, px)
        picture = draw_progress(CFG, folder, images)
        enter_in_index(folder, images)
    return picture


def test_each_cell_is_the_first_seed_of_its_prompt_at_its_step(tmp_path: Path) -> None:
    found = cells(draw(tmp_path, [0, 10, 20], px=32), (2, 3), px=128)
    assert found.tolist() == [[7, 17, 27], [107, 117, 127]]


def test_of_many_grids_the_first_the_last_and_some_between_are_shown(tmp_path: Path) -> None:
    found = cells(draw(tmp_path, list(range(40)), px=128), (2, MOST_COLUMNS), px=128)
    steps = found[0] - 7
    assert (steps[0], steps[-1]) == (0, 39)
    assert {*np.diff(steps)} <= {3, 4}


def test_large_images_are_shown_smaller_and_a_removed_grid_is_left_out(tmp_path: Path) -> None:
    draw(tmp_path, [0, 10], px=512)
    (tmp_path / "step_00000010" / "p01_s7.png").unlink()
    found = cells(draw(tmp_path, [20], px=512), (2, 2), px=256)
    assert found.tolist() == [[7, 27], [107, 127]]
