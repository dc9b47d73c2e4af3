"""Share of the power that the 8-bit pictures of an archive clip, by law and window.

    python tools/bench_clipping.py CATALOGUE [key=value ...]     # keys of the section tile

Power is that of the 16-bit masters, which clip nothing, against the amplitude of code 255.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from hpc.config import load
from sarhpc.archive.scene import Archive
from sarhpc.archive.stac_catalog import open_archive
from sarhpc.shards.images import decode_array
from sarhpc.shards.radiometry import master_amplitude
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

LAWS = (("mu+3sigma", "scene"), ("db", "scene"), ("db", "archive"))


def main() -> None:
    """Print a line for each law."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalogue")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    archive = open_archive(arguments.catalogue)
    # Every tile counts: none is left out for what its picture would clip.
    cfg = replace(
        load(TileConfig, overrides=arguments.overrides),
        max_saturated=1.0,
        min_signal=0.0,
        master="log",
        split=SplitConfig(fractions=[1.0, 0.0, 0.0]),
    )
    for mode, scope in LAWS:
        share, tiles = clipped(archive, replace(cfg, normalisation=mode, db_scope=scope))
        print(f"{mode:10} {scope:8} tiles={tiles} power_clipped={100 * share:.2f} %")


def clipped(archive: Archive, cfg: TileConfig) -> tuple[float, int]:
    """Share of the power of all tiles above the amplitude of code 255, and their number."""
    total, lost, tiles = 0.0, 0.0, 0
    for number, inputs in enumerate(plan_scenes(archive.search(), cfg).shards):
        for sample in tile_shard(number, inputs, archive, cfg).samples:
            meta = sample.meta
            amplitude = master_amplitude(decode_array(sample.members["sar16.npy"]), meta)
            power = np.square(amplitude.astype(np.float64))
            total += float(power.sum())
            lost += float(np.maximum(power - meta["normalisation"]["top"] ** 2, 0).sum())
            tiles += 1
    return lost / total, tiles


if __name__ == "__main__":
    main()
