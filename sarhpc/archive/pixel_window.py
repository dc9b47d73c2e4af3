"""Windows of an image: half-open ranges of rows and columns."""

from __future__ import annotations

from pathlib import Path

from hpc.errors import DataError

Range = tuple[int, int]
"""First, and one past the last."""


def check_window(rows: Range, cols: Range, shape: tuple[int, int], path: Path) -> None:
    """Raise DataError unless a window is not empty and inside the image (H, W) at `path`.

    Raises:
        DataError: it is empty, or exceeds the image.
    """
    if not (0 <= rows[0] < rows[1] <= shape[0] and 0 <= cols[0] < cols[1] <= shape[1]):
        raise DataError(
            f"window rows {rows}, cols {cols} exceeds {path} of {shape[0]} x {shape[1]} pixels; "
            "plan the tiles again from this scene"
        )
