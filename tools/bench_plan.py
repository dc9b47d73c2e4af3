"""Seconds and memory of planning, publishing and reading a plan of many tiles, step by step.

    python tools/bench_plan.py [--tiles 11700000] [--scene-tiles 10000]

One tile in seven is too close to another split and is dropped: of 11.7 million 10 are kept. Scenes
are synthetic: square, at the spacing of their tiles, side by side in one UTM zone, each overlapping
the next by a fifth. Their pixels are constant and hardly surveyed: the cost of a survey depends on
the scenes and not on the tiles (bench_tiling.py). Each step reports CPU seconds, so that a busy
machine does not count, and the peak memory until its end.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from hpc.store.ledger import Ledger
from hpc.store.plan import make_plan, planned_shards, publish_plan, read_plan
from sarhpc.archive.scene import SarHeader, Scene
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.plan import plan_scenes

CRS = "EPSG:32631"
OVERLAP = 0.2
T = TypeVar("T")


@dataclass(frozen=True)
class FlatReader:
    """A constant scene of any size that takes no memory."""

    header: SarHeader

    def read(
        self, rows: tuple[int, int], cols: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Ones, all valid."""
        shape = rows[1] - rows[0], cols[1] - cols[0]
        return np.ones(shape, np.float32), np.ones(shape, bool)

    def close(self) -> None:
        """Nothing is open."""


def made_up_scenes(count: int, side_tiles: int, cfg: TileConfig) -> Iterator[Scene]:
    """Scenes of `side_tiles` x `side_tiles` tiles, in rows of a square."""
    assert cfg.pixel_m is not None
    side_m = side_tiles * cfg.tile_px * cfg.pixel_m
    across = math.isqrt(count - 1) + 1
    to_degrees = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    for number in range(count):
        x = 200_000 + (number % across) * side_m * (1 - OVERLAP)
        y = 5_000_000 - (number // across) * side_m * (1 - OVERLAP)
        west, south, east, north = to_degrees.transform_bounds(x, y - side_m, x + side_m, y)
        yield Scene(
            f"scene-{number:06d}",
            {},
            {"x": x, "y": y, "side_px": side_tiles * cfg.tile_px},
            (west, south, east, north),
        )


def open_flat(scene: Scene) -> FlatReader:
    """The reader of a made-up scene."""
    where = scene.properties
    return FlatReader(
        SarHeader(
            shape=(where["side_px"], where["side_px"]),
            is_complex=False,
            affine=(0.35, 0.0, where["x"], 0.0, -0.35, where["y"]),
            crs=CRS,
            spacing_m=(0.35, 0.35),
            range_direction="+col",
            looks=1.0,
            calibration="sigma0",
        )
    )


def peak_mb() -> float:
    """Peak memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """CPU seconds of each step, printed with the peak memory."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, name: str, work: Callable[[], T]) -> T:
        """What `work` returns."""
        start = time.process_time()
        result = work()
        seconds = time.process_time() - start
        self.seconds += seconds
        print(f"{name:<24}{seconds:>8.2f} s{peak_mb():>9.0f} MB", flush=True)
        return result


def main() -> None:
    """Print one row for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=11_700_000)
    parser.add_argument("--scene-tiles", type=int, default=10_000)
    arguments = parser.parse_args()
    cfg = TileConfig(survey_mpx=0.07)
    side = math.isqrt(arguments.scene_tiles)
    count = max(arguments.tiles // side**2, 1)
    scenes = list(made_up_scenes(count, side, cfg))
    print(f"{count} scenes of {side * side} tiles, {cfg.shard_samples} a shard")
    before = peak_mb()
    print(f"{'before':<34}{before:>9.0f} MB")
    clock = Clock()
    planned = clock.timed("plan the scenes", lambda: plan_scenes(scenes, cfg, opener=open_flat))
    made = clock.timed("number the shards", lambda: make_plan("tile", planned.shards))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        clock.timed("publish", lambda: publish_plan(made, path))
        # As in a run: what was planned is still there while it is read back.
        read = clock.timed("read", lambda: read_plan(path))
        clock.timed("its id", lambda: read.id)
        missing = clock.timed("missing shards", lambda: Ledger(Path(folder)).missing(read))
        clock.timed("count them", lambda: planned_shards(path))
        tiles = sum(len(shard.inputs["tiles"]) for shard in missing)
        size = path.stat().st_size
    print(
        f"{len(missing)} shards, {tiles} tiles kept, {size / 1e6:.0f} MB on disk: "
        f"{clock.seconds:.1f} s, {clock.seconds / tiles * 1e6:.2f} us a tile, "
        f"{(peak_mb() - before) * 2**20 / tiles:.0f} bytes a tile, {peak_mb():.0f} MB at most"
    )


if __name__ == "__main__":
    main()
