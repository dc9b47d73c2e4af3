"""The progress of a training as one picture: prompts down, steps across (the paper's figure 5)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpc.publish import publishing
from sarhpc.diffusion.contact_sheet import contact_sheet
from sarhpc.shards.pictures import opened_picture
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.grids import GridImage, read_index

PICTURE = "progress.png"

MOST_COLUMNS = 13
"""The base and twelve epochs; of more grids, as many are drawn, evenly spread."""
LEAST_PX, MOST_PX = 128, 256
"""Side of an image in the picture: enough for its title, and few enough for a screen."""


def draw_progress(cfg: TrainConfig, folder: Path, sampled: list[GridImage]) -> Path:
    """Publish the picture of the grids in the index and of the one just `sampled`; its path.

    Of each prompt the first seed is shown. A grid with missing images is left out.
    """
    row_images = [image for image in sampled if image.seed == sampled[0].seed]
    rows = [Path(image.path).name for image in row_images]
    entries = [*read_index(folder), *(asdict(image) for image in sampled)]
    columns = _spread(_columns(folder, entries, rows))
    gray = cfg.image_member == "sar.png"
    images = [[_resized(folder / column[row]["path"], gray) for column in columns] for row in rows]
    titles = [_title(column[rows[0]]) for column in columns]
    with publishing(folder / PICTURE) as file:
        sheet = contact_sheet(np.array(images), [image.prompt for image in row_images], titles)
        sheet.save(file, format="PNG")
    return folder / PICTURE


Column = dict[str, dict[str, Any]]
"""Entries of one step by the name of their file, which is the same in every grid."""


def _columns(folder: Path, entries: list[dict[str, Any]], rows: list[str]) -> list[Column]:
    """The grids whose images of these rows are all there, by step."""
    by_step: dict[int, Column] = {}
    for entry in entries:
        if (folder / entry["path"]).is_file():
            by_step.setdefault(entry["step"], {})[Path(entry["path"]).name] = entry
    return [column for _, column in sorted(by_step.items()) if {*rows} <= {*column}]


def _spread(columns: list[Column]) -> list[Column]:
    """At most `MOST_COLUMNS` of them, the first and the last among these."""
    count = min(len(columns), MOST_COLUMNS)
    return [
        columns[number] for number in np.linspace(0, len(columns) - 1, count).round().astype(int)
    ]


def _title(entry: dict[str, Any]) -> str:
    step = entry["step"]
    return f"epoch {entry['epoch']}, step {step:,}" if step else "before training"


def _resized(path: Path, gray: bool) -> NDArray[np.uint8]:
    """An image (H, W) or (H, W, 3) at its size in the picture."""
    with opened_picture(path) as file:
        image = file.convert("L" if gray else "RGB")
    side = max(image.size)
    if side < LEAST_PX:
        factor = -(-LEAST_PX // side)
        size = (image.width * factor, image.height * factor)
        image = image.resize(size, Image.Resampling.NEAREST)
    elif side > MOST_PX:
        image.thumbnail((MOST_PX, MOST_PX), Image.Resampling.BOX)
    return np.asarray(image)
