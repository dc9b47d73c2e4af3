"""Features of tiles of which some measures are given and the others are flat."""

from __future__ import annotations

from typing import Any

import numpy as np

from sarhpc.measures.features import Features

WIDTHS: dict[str, tuple[int, ...]] = {
    "local_enl": (600,), "log_cumulants": (3,), "histogram": (256,), "percentiles_db": (8,),
    "mean_db": (), "bright_excess_db": (), "clipped": (), "lag_products": (2, 7),
    "spectrum": (256,), "radial": (32,), "lines_db": (2, 4), "texture": (4, 3, 5),
}  # fmt: skip


def known_features(count: int = 1, **known: Any) -> Features:
    """A set of `count` tiles with the measures `known`: one row a tile, or one for all of them.

    The others are those of white single-look speckle without texture.
    """
    flat = {name: np.zeros((count, *width)) for name, width in WIDTHS.items()}
    flat["local_enl"][:, 250] = 1.0
    flat["histogram"] += 1 / 256
    flat["spectrum"] += 1.0
    flat["radial"] += 1.0
    flat["lag_products"] += 1.0
    flat["lag_products"][:, :, 1] = 2.0
    given = {
        name: np.broadcast_to(np.asarray(value, float), (count, *WIDTHS[name]))
        for name, value in known.items()
    }
    return Features(**{**flat, **given})
