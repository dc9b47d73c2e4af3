"""Measures by land-cover class: what tiles of a class are like, real and synthetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sarhpc.evaluation.config import MIN_TILES
from sarhpc.measures.distances import looks, uniform
from sarhpc.measures.features import Features
from sarhpc.measures.levels import PERCENTILES

REAL = "real"
Labels = Sequence[str | None]


def class_block(sets: Mapping[str, tuple[Features, Labels]]) -> dict[str, Any]:
    """The block `classes` of a result: measures by class and set; empty where none can be compared.

    Classes have at least four tiles of the real set; others of a set with fewer are left out.

    Args:
        sets: measures and the class of each tile, by set; `real` is one of them.
    """
    counts = {name: _counts(labels) for name, (_, labels) in sets.items()}
    wanted = sorted(one for one, count in counts[REAL].items() if count >= MIN_TILES)
    found: dict[str, dict[str, Any]] = {}
    for one in wanted:
        rows = {
            name: _measured(features, labels, one)
            for name, (features, labels) in sets.items()
            if counts[name].get(one, 0) >= MIN_TILES
        }
        if len(rows) > 1:
            found[one] = rows
    return {"classes": found} if found else {}


def _counts(labels: Labels) -> dict[str, int]:
    known = [label for label in labels if label]
    return {one: known.count(one) for one in set(known)}


def _measured(features: Features, labels: Labels, one: str) -> dict[str, float]:
    tiles = features.subset(np.flatnonzero([label == one for label in labels]))
    _, k2, k3 = tiles.log_cumulants.mean(0)
    brightest = tiles.percentiles_db[:, PERCENTILES.index(99.9)]
    return {
        "tiles": len(tiles),
        "enl": looks(tiles, uniform(tiles)),
        "k2": float(k2),
        "k3": float(k3),
        "mean_db": float(tiles.mean_db.mean()),
        "mean_db_error": float(tiles.mean_db.std(ddof=1) / np.sqrt(len(tiles))),
        "p99_9_db": float(brightest.mean()),
    }
