"""The score by which checkpoints are selected: one number of levels, speckle and spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping

SCORED = ("E3_jsd", "E4_acf", "E5_lsd")
"""One distance each of levels, speckle and spectrum."""
LEAST = 1e-12
"""A distance of 0 counts as this, so that its logarithm is finite."""


def mean_log(distances: Mapping[str, float]) -> float:
    """Mean of ln(distance) over `SCORED`: lower is nearer, and only differences mean something."""
    return sum(math.log(max(distances[name], LEAST)) for name in SCORED) / len(SCORED)
