"""Tiles per second and core: this project against other ways to cut a scene.

All read the same complex 0.2 m scene from disk with one thread and write tiles of 512 px at 0.35 m,
each with an 8-bit picture and a 16-bit master (see `tiling_peers.py`). They are timed in turns
within one run, in CPU seconds of the process and of the programs it calls, and the best of the
rounds counts. Mean intensity (true: 0 dB) and looks (true: 1) show whether the outputs are equal;
`lacks` names what a row does not write. Then the same scene several times in this process, by one
Dask worker and by two, in wall seconds.

    python tools/bench_tiling.py [--pixels 8192] [--rounds 3] [--scenes 8]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image
from rasterio.enums import Resampling
from tiling_peers import (
    PIXEL_M,
    TILE_PX,
    file_powers,
    gdal_programs,
    gdal_retile,
    gdal_translate,
    read_once,
    tar_powers,
    warped_vrt,
    write_optical,
    write_speckle,
)

from hpc.cluster.dask import dask_cluster
from hpc.cluster.dask_shards import run_shards
from hpc.store.plan import ShardTask
from sarhpc.archive.scene import Scene
from sarhpc.shards.images import decode_array, decode_gray8, encode_array, encode_gray8
from sarhpc.shards.reader import read_shard
from sarhpc.shards.writer import write_shard
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

CFG = TileConfig(
    tile_px=TILE_PX,
    pixel_m=PIXEL_M,
    split=SplitConfig(fractions=[1.0, 0.0, 0.0]),
    shard_samples=10_000,
)
SHORT = "quality, footprint"
FILES = "tar, metadata, checksums, quality, footprint"


class OneScene:
    """An archive of one scene."""

    def __init__(self, scene: Scene) -> None:
        """Hold `scene`."""
        self.scene = scene

    def search(self, **_: object) -> Iterator[Scene]:
        """Yield the scene for any query."""
        yield self.scene


@dataclass(frozen=True)
class Contender:
    """One way from the scene to tiles."""

    work: Callable[[Path], int]
    """Writes tiles into an empty folder; returns their number."""
    powers: Callable[[Path], Iterator[np.ndarray]]
    """Intensity (H, W) of each tile in that folder."""
    lacks: str = "nothing"
    """What sarhpc writes and this does not."""
    rival: str = "sarhpc"
    """Whose rate this one's is compared with."""


def the_scene(path: Path, optical: Path | None = None) -> Scene:
    """The scene in `path` as a catalogue describes it, with an optical image if given."""
    assets = {"sar": path} if optical is None else {"sar": path, "optical": optical}
    properties = {"sarhpc:range_direction": "+col", "sarhpc:calibration": "sigma0"}
    return Scene("bench", assets, properties)


def project(scene: Scene, inputs: dict[str, Any], out: Path) -> int:
    """Tiles written by one shard task of this project; returns their number."""
    samples = tile_shard(0, inputs, OneScene(scene), CFG).samples
    return write_shard(out / "tiles.tar", samples).samples


def contenders(path: Path, optical: Path, inputs: dict[str, Any]) -> dict[str, Contender]:
    """Every way there is on this machine, by its name."""
    top = inputs["scene"]["normalisation"]["top"]
    both = "sarhpc, optical"
    found = {
        "sarhpc": Contender(partial(project, the_scene(path), inputs), tar_powers),
        both: Contender(partial(project, the_scene(path, optical), inputs), tar_powers, rival=both),
    }
    for kernel in (Resampling.bilinear, Resampling.cubic, Resampling.lanczos):
        work = partial(warped_vrt, path, top, kernel)
        found[f"WarpedVRT {kernel.name}"] = Contender(work, tar_powers, SHORT)
    work = partial(warped_vrt, path, top, Resampling.lanczos, optical=optical)
    found["WarpedVRT lanczos, optical"] = Contender(work, tar_powers, SHORT, both)
    for name, how, intensity in (
        ("bilinear", Image.Resampling.BILINEAR, False),
        ("lanczos", Image.Resampling.LANCZOS, False),
        ("box of intensity", Image.Resampling.BOX, True),
    ):
        work = partial(read_once, path, top, how, intensity)
        found[f"read once, PIL {name}"] = Contender(work, tar_powers, SHORT)
    if gdal_programs() is None:
        print("gdal_translate, gdalwarp or gdal_retile is missing: their rows are left out")
        return found
    for kernel in ("average", "cubic"):
        for program, work in (("gdal_retile", gdal_retile), ("gdal_translate", gdal_translate)):
            cut = partial(work, path, top, kernel)
            found[f"{program} {kernel}"] = Contender(cut, partial(file_powers, top=top), FILES)
    return found


def cpu_seconds() -> float:
    """CPU seconds of this process and of the programs it waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def race(ways: dict[str, Contender], folder: Path, rounds: int) -> dict[str, float]:
    """Tiles per CPU second of every contender, the best of `rounds` in turns."""
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, way in ways.items():
            out = folder / name.replace(" ", "_")
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            start = cpu_seconds()
            tiles = way.work(out)
            best[name] = max(best[name], tiles / (cpu_seconds() - start))
    return best


def show(ways: dict[str, Contender], best: dict[str, float], folder: Path) -> None:
    """Print rate, ratio and quality of every contender."""
    for name, way in ways.items():
        out = folder / name.replace(" ", "_")
        powers = list(way.powers(out))
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        decibel = 10 * np.log10(np.mean([power.mean() for power in powers]))
        looks = powers[0].mean() ** 2 / powers[0].var()
        print(
            f"{name:31s} tiles_per_s={best[name]:5.1f} ratio={best[way.rival] / best[name]:5.2f} "
            f"tiles={len(powers)} kB_per_tile={size / len(powers) / 1e3:.0f} "
            f"mean_intensity_db={decibel:+.2f} looks={looks:.2f} lacks={way.lacks!r}"
        )


def show_floors(path: Path, shard: Path, rate: float) -> None:
    """Print what copying the scene and encoding its tiles take of the time of `rate` tiles/s."""
    # One buffer for all: fresh pages for the whole scene would cost more than copying it.
    strip = np.empty(16 << 20, np.uint8)
    copied = np.empty_like(strip)
    start = time.process_time()
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(memoryview(strip)):
            copied[:read] = strip[:read]
    copy = time.process_time() - start
    samples = [sample.members for sample in read_shard(shard)]
    pictures = [decode_gray8(members["sar.png"]) for members in samples]
    masters = [decode_array(members["sar16.npy"]) for members in samples]
    start = time.process_time()
    encoded = [
        (encode_gray8(picture), encode_array(master))
        for picture, master in zip(pictures, masters, strict=True)
    ]
    encode = time.process_time() - start
    whole, size = len(encoded) / rate, path.stat().st_size / 1e6
    print(
        f"floors of sarhpc: read_and_copy_share={copy / whole:.2f} ({size:.0f} MB) "
        f"encode_share={encode / whole:.2f} seconds={whole:.2f}"
    )


def shard_work(task: ShardTask, path: Path, folder: Path) -> int:
    """Publish the tiles of one task, as a worker does; returns their number."""
    out = folder / task.id
    out.mkdir(exist_ok=True)
    return project(the_scene(path), dict(task.inputs), out)


def efficiency(path: Path, inputs: dict[str, Any], folder: Path, scenes: int) -> None:
    """Print the wall time of `scenes` scenes in this process, by one Dask worker and by two."""
    work = partial(shard_work, path=path, folder=folder)
    tasks = [ShardTask(f"{number:06d}", inputs) for number in range(scenes)]
    start = time.perf_counter()
    tiles = sum(map(work, tasks))
    seconds = {0: time.perf_counter() - start}
    print(f"workers=none scenes={scenes} tiles={tiles} wall_s={seconds[0]:.2f}")
    for workers in (1, 2):
        with dask_cluster(folder, workers) as client:
            client.wait_for_workers(workers)
            # Whoever was not warmed up would load its libraries in the time of its first shard.
            _through(client, work, tasks[:workers])
            warm = max(client.run(peak_mb).values())
            start = time.perf_counter()
            tiles = _through(client, work, tasks)
            seconds[workers] = time.perf_counter() - start
            peak = max(client.run(peak_mb).values())
            print(
                f"workers={workers} scenes={scenes} tiles={tiles} wall_s={seconds[workers]:.2f} "
                f"peak_mb_after_one_scene={warm:.0f} after_all={peak:.0f}"
            )
    print(
        f"overhead of the scheduler={seconds[1] / seconds[0] - 1:.1%} "
        f"efficiency of two workers={seconds[1] / (2 * seconds[2]):.0%} cores={os.cpu_count()}"
    )


def peak_mb() -> float:
    """Peak memory of this process, MB."""
    # Not ru_maxrss: a worker inherits that of the process it was started from.
    [line] = [
        each
        for each in Path("/proc/self/status").read_text().splitlines()
        if each.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1e3


def _through(client: Any, work: Callable[[ShardTask], int], tasks: list[ShardTask]) -> int:
    """Tiles of all `tasks` together.

    Raises:
        BaseException: whatever went wrong in one of them.
    """
    tiles = 0
    for _, made in run_shards(client, work, tasks, window=8, retries=0):
        if isinstance(made, BaseException):
            raise made
        tiles += made
    return tiles


def compare(folder: Path, pixels: int, rounds: int, scenes: int) -> None:
    """Time everything and print it."""
    path, optical = folder / "scene.tif", folder / "optical.tif"
    write_speckle(path, pixels)
    write_optical(optical, pixels)
    start = time.process_time()
    [inputs] = plan_scenes([the_scene(path)], CFG).shards
    print(f"machine={platform.machine()} scene={pixels}x{pixels} complex64 uncompressed")
    print(f"survey_s={time.process_time() - start:.2f} once per scene, in no row")
    ways = contenders(path, optical, inputs)
    best = race(ways, folder, rounds)
    show(ways, best, folder)
    show_floors(path, folder / "sarhpc" / "tiles.tar", best["sarhpc"])
    efficiency(path, inputs, folder, scenes)


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pixels", type=int, default=8192, help="side of the scene, times 512")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best counts")
    parser.add_argument("--scenes", type=int, default=8, help="scenes for one and two workers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments.pixels, arguments.rounds, arguments.scenes)


if __name__ == "__main__":
    main()
