"""Real tiles to compare images with, drawn over the scenes of shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.shards.reader import ShardIndex
    from sarhpc.shards.sample import Sample


def even_samples(shards: Sequence[Path], limit: int) -> list[Sample]:
    """At most `limit` samples of shards, in their order, as evenly over scenes as they allow.

    Samples that name no scene count as of one. Memory holds the samples taken, and of the others
    the name of the scene.

    Raises:
        DataError: a shard is missing, cut short or damaged.
    """
    from sarhpc.measures.nulls import evenly_over_groups
    from sarhpc.shards.reader import ShardIndex
    from sarhpc.shards.sample import Sample

    indices = [ShardIndex.scan(path) for path in shards]
    scenes = [
        _scene_of(_members(index, row, ["meta.json"]))
        for index in indices
        for row in range(len(index))
    ]
    if not scenes:
        return []
    wanted = evenly_over_groups(scenes, limit)
    taken, first = [], 0
    for index in indices:
        for number in wanted[(wanted >= first) & (wanted < first + len(index))]:
            row = int(number) - first
            taken.append(Sample(index.key(row), _members(index, row, index.members(row))))
        first += len(index)
    return taken


def even_tiles(shards: Sequence[Path], limit: int) -> tuple[NDArray[np.uint8], list[str]]:
    """SAR tiles (N, H, W) of `even_samples`, and the scene of each.

    Raises:
        DataError: a shard is damaged, or a tile is no 8-bit gray image.
    """
    import numpy as np

    from sarhpc.shards.images import decode_gray8

    samples = even_samples(shards, limit)
    tiles = np.stack([decode_gray8(sample.members["sar.png"]) for sample in samples])
    return tiles, scenes_of(samples)


def scenes_of(samples: Sequence[Sample]) -> list[str]:
    """Scene of each sample; empty where it names none."""
    return [_scene_of(sample.members) for sample in samples]


def _members(index: ShardIndex, row: int, extensions: Iterable[str]) -> dict[str, bytes]:
    from sarhpc.shards.tar import read_exactly

    places = index.members(row)
    with index.path.open("rb") as file:
        return {
            extension: read_exactly(file, places[extension], index.path)
            for extension in extensions
            if extension in places
        }


def _scene_of(members: Mapping[str, bytes]) -> str:
    return str(json.loads(members.get("meta.json", b"{}")).get("scene_id") or "")
