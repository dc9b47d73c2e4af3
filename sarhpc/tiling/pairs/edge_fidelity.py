"""Whether an image has its edges where a line drawing has them: 1 - AUC of the edge ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from sarhpc.tiling.pairs.conditions import edge_ratios_db


def misplaced_edges(image: NDArray[np.uint8], layer: NDArray[np.uint8]) -> float:
    """Share of pairs of pixels, on and off the lines, whose edge ratios disagree: 1 - AUC.

    0 where every pixel on a line has a stronger edge than every pixel off it, a half by chance. It
    needs no threshold.

    Args:
        image: grey codes (H, W), proportional to amplitude.
        layer: the drawing (H, W), of which everything above 0 is a line.

    Returns:
        NaN for a layer without lines, or with nothing else.
    """
    drawn = layer.ravel() > 0
    on = int(drawn.sum())
    if on in (0, drawn.size):
        return float("nan")
    codes = image.astype(np.float32)
    codes[codes == 0] = 0.5
    ratios = edge_ratios_db(codes / np.float32(255), np.ones(image.shape, bool)).max(axis=0)
    above = rankdata(ratios)[drawn].sum() - on * (on + 1) / 2
    return float(1 - above / (on * (drawn.size - on)))
