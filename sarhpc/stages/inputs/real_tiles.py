"""Real tiles to compare images with, drawn over the scenes of shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.shards.reader import ShardIndex


def even_tiles(shards: Sequence[Path], limit: int) -> tuple[NDArray[np.uint8], list[str]]:
    """At most `limit` SAR tiles (N, H, W) of shards, as evenly over scenes as they allow.

    With the scene of each; tiles that name none count as of one scene.

    Raises:
        DataError: a shard is damaged, or a tile is no 8-bit gray image.
    """
    import numpy as np

    from sarhpc.measures.nulls import evenly_over_groups
    from sarhpc.shards.images import decode_gray8
    from sarhpc.shards.reader import ShardIndex

    indices = [ShardIndex.scan(path) for path in shards]
    scenes = [_scene_of(meta) for index in indices for meta in _members(index, "meta.json")]
    wanted = evenly_over_groups(scenes, limit)
    tiles, first = [], 0
    for index in indices:
        rows = wanted[(wanted >= first) & (wanted < first + len(index))] - first
        tiles += [decode_gray8(image) for image in _members(index, "sar.png", rows.tolist())]
        first += len(index)
    return np.stack(tiles), [scenes[number] for number in wanted]


def _members(
    index: ShardIndex, extension: str, rows: Iterable[int] | None = None
) -> Iterator[bytes]:
    """A member of some or all samples of a shard; empty bytes where a sample lacks it."""
    from sarhpc.shards.tar import read_exactly

    with index.path.open("rb") as file:
        for row in range(len(index)) if rows is None else rows:
            place = index.members(row).get(extension)
            yield read_exactly(file, place, index.path) if place else b""


def _scene_of(meta: bytes) -> str:
    return str(json.loads(meta or b"{}").get("scene_id") or "")
