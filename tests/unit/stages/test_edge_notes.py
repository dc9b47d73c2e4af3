"""The line of a report on how images follow their sketches."""

from __future__ import annotations

import re

import numpy as np

from sarhpc.stages.edge_notes import edge_line

PX = 64


def followed(rows: range) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images of speckle whose level rises at a row, and the layers of that edge."""
    rng = np.random.default_rng(0)
    pairs = []
    for row in rows:
        layer = np.zeros((PX, PX), np.uint8)
        layer[row - 1 : row + 2] = 255
        image = rng.rayleigh(20.0, (PX, PX))
        image[row:] *= 4
        pairs.append((image.clip(0, 255).astype(np.uint8), layer))
    return pairs


def test_images_that_follow_their_sketches_are_told_from_those_that_do_not() -> None:
    line = edge_line(followed(range(12, 52, 4)))
    own, other = (float(value) for value in re.findall(r"(\d\.\d+) \(", line))
    assert own < 0.05 < 0.3 < other
    assert "10 images" in line


def test_others_are_other_sketches_where_a_few_are_used_in_turn() -> None:
    line = edge_line(followed(range(16, 52, 24)) * 4)
    own, other = (float(value) for value in re.findall(r"(\d\.\d+) \(", line))
    assert own < 0.05 < 0.3 < other
    assert "none of others to compare with" in edge_line(followed(range(16, 17)) * 3)
