"""What shards of a plan list: positions of tiles, each kept once in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def tile_positions(tiles: NDArray[np.int64], pairs: dict[int, list[int]]) -> list[list[int]]:
    """Rows and columns of `tiles` (N, 2); `pairs` keeps one list for all that are equal."""
    codes = (tiles[:, 0] << 32) + tiles[:, 1]
    listed = []
    for code in codes.tolist():
        pair = pairs.get(code)
        if pair is None:
            pair = pairs[code] = [code >> 32, code & 0xFFFFFFFF]
        listed.append(pair)
    return listed


def first_tiles(shards: list[dict[str, Any]], max_tiles: int | None) -> list[dict[str, Any]]:
    """The shards that hold the first `max_tiles` tiles; all of them for None."""
    if max_tiles is None:
        return shards
    kept = []
    for shard in shards:
        if max_tiles <= 0:
            break
        kept.append({**shard, "tiles": shard["tiles"][:max_tiles]})
        max_tiles -= len(shard["tiles"])
    return kept
