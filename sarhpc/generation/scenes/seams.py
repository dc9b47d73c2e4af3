"""Whether a scene shows the windows of its last step (E13)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.generation.scenes.windows import Size, spans
from sarhpc.measures.seams import CELL_PX, Join, measure_seams
from sarhpc.shards.radiometry import Normalisation, decode_levels, encode_levels


def joins_of(size: Size, side: Size, offset: Size, scale: int) -> list[Join]:
    """Where windows meet, of those that can be measured: half a cell or more from the edges, px.

    Args:
        size: of the scene, latent px.
        side: of a window, latent px.
        offset: of the grid, latent px.
        scale: pixels of the picture to a latent pixel.
    """
    found = []
    for axis in (0, 1):
        starts = [span.start * scale for span in spans(size[axis], side[axis], offset[axis])]
        far = range(CELL_PX // 2, size[axis] * scale - CELL_PX // 2 + 1)
        found += [Join(axis, start, 0) for start in starts if start in far]
    return found


def seam_facts(
    image: NDArray[np.float32], law: Normalisation | None, joins: list[Join]
) -> dict[str, Any] | None:
    """E13 of a scene (H, W, 3) in [0, 1], for `meta.json`; None where it cannot be measured.

    Args:
        image: as decoded.
        law: of its levels; None takes them as amplitude.
        joins: where windows meet.
    """
    gray = image.mean(axis=2)
    amplitude = gray if law is None else law.amplitudes(decode_levels(encode_levels(gray)))
    try:
        report = measure_seams(amplitude, joins)
    except ValueError:
        # Too small, or without contrast: there is nothing to compare.
        return None
    return {
        "passed": report.passed,
        "level": report.level,
        "p_values": {test.name: float(f"{test.p_value:.4g}") for test in report.tests},
    }
