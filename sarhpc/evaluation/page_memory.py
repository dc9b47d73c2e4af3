"""The section of the page on copies of training tiles (E11)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "memory"
"""Of tables and pictures, in the folder of the evaluation."""
GAP_PX = 4
"""Columns between the two tiles of a picture."""
SHOWN_PX = 128
"""Side below which tiles are enlarged."""


def section(block: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Variables of `page_memory.html.j2`: the block, and the pictures of its pairs where they are.

    Args:
        block: `memory` of a result.
        folder: of the evaluation.
    """
    times = 1 if max(block.get("px", [SHOWN_PX])) >= SHOWN_PX else 2
    pairs = [
        {
            **pair,
            "images": _images(folder / FOLDER / str(pair.get("picture", ""))),
            "times": times,
        }
        for pair in block.get("pairs", [])
    ]
    return {"memory": block, "pairs": pairs}


def sentence(block: Mapping[str, Any], judged: str) -> str:
    """How many images repeat a training tile, or that this was not looked for."""
    if block.get("left_out"):
        return f"Copies of training tiles were not looked for: {block['left_out'].rstrip('.')}."
    found = block.get("memorised")
    if not found:
        return ""
    return (
        f"{found['count']:,} of {found['of']:,} images repeat a training tile; "
        f"{100 * block['false_alarms']:.2g} % would by chance."
    )


def _images(path: Path) -> list[NDArray[np.uint8]]:
    """An image and its nearest training tile; none where the picture is gone."""
    from sarhpc.shards.pictures import read_picture

    if not path.is_file():
        return []
    both = read_picture(path, "L")
    middle = (both.shape[1] - GAP_PX) // 2
    return [both[:, :middle], both[:, middle + GAP_PX :]]
