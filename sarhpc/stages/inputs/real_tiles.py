"""Real tiles to judge a training by, drawn over the flight lines of shards."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.shards.reader import ShardIndex
    from sarhpc.shards.sample import Sample


def even_samples(
    shards: Sequence[Path], limit: int, wanted: Collection[str] | None = None
) -> list[Sample]:
    """At most `limit` samples of shards, in their order, as evenly over flight lines as they allow.

    Samples that name no flight line count as of their scene, without one as of one group. Memory
    holds the samples taken, and of the others the name of the group.

    Args:
        shards: the shards.
        limit: most samples.
        wanted: extensions of the members to read; None reads all.

    Raises:
        DataError: a shard is missing, cut short or damaged.
    """
    from sarhpc.measures.nulls import evenly_over_groups
    from sarhpc.shards.reader import ShardIndex
    from sarhpc.shards.sample import Sample

    indices = [ShardIndex.scan(path) for path in shards]
    groups = [
        _group_of(_members(index, row, ["meta.json"]))
        for index in indices
        for row in range(len(index))
    ]
    if not groups:
        return []
    drawn = evenly_over_groups(groups, limit)
    taken, first = [], 0
    for index in indices:
        for number in drawn[(drawn >= first) & (drawn < first + len(index))]:
            row = int(number) - first
            read = index.members(row) if wanted is None else wanted
            taken.append(Sample(index.key(row), _members(index, row, read)))
        first += len(index)
    return taken


def even_tiles(shards: Sequence[Path], limit: int) -> tuple[NDArray[np.uint8], list[str]]:
    """SAR tiles (N, H, W) of `even_samples`, and the flight line or scene of each.

    Raises:
        DataError: a shard is damaged, or a tile is no 8-bit gray image.
    """
    import numpy as np

    from sarhpc.shards.images import decode_gray8

    samples = even_samples(shards, limit, ("sar.png", "meta.json"))
    tiles = np.stack([decode_gray8(sample.members["sar.png"]) for sample in samples])
    return tiles, [_group_of(sample.members) for sample in samples]


def _members(index: ShardIndex, row: int, extensions: Iterable[str]) -> dict[str, bytes]:
    from sarhpc.shards.tar import read_exactly

    places = index.members(row)
    with index.path.open("rb") as file:
        return {
            extension: read_exactly(file, places[extension], index.path)
            for extension in extensions
            if extension in places
        }


def _group_of(members: Mapping[str, bytes]) -> str:
    from sarhpc.evaluation.image_sets import group_of

    return group_of(json.loads(members.get("meta.json", b"{}")))
