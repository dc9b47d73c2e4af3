"""Archives of one or several scenes of arrays, and all their tiles."""

from __future__ import annotations

from array_scenes import ArrayArchive, band_speckle

from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

TRAIN = SplitConfig(fractions=[1.0, 0.0, 0.0])
SMALL = TileConfig(tile_px=64, block_tiles=2, split=TRAIN)
FIELD = band_speckle((700, 800), 0.8, (0.2, 0.0))


def archive_of(**readers):
    return ArrayArchive(
        {
            name: (reader if callable(reader) else lambda r=reader: r)
            for name, reader in readers.items()
        }
    )


def tiles_of(archive, cfg, plan=None):
    """All samples of an archive, and what was rejected."""
    plan = plan or plan_scenes(archive.search(), cfg, opener=archive.open)
    samples, rejected = [], {}
    for number, inputs in enumerate(plan.shards):
        tiled = tile_shard(number, inputs, archive, cfg, opener=archive.open)
        samples.extend(tiled.samples)
        for reason, count in tiled.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    return samples, rejected
