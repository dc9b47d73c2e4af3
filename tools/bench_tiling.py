"""Tiles per second and core: this project against a plain rasterio WarpedVRT + PNG loop.

Both read the same complex 0.2 m scene from disk in one process with one thread and write the same
output: a tar with, per 512-pixel tile of 0.35 m, an 8-bit PNG, a 16-bit master and metadata. They
are timed in turns within one run, and the best of the rounds counts. Mean intensity (true: 0 dB)
and looks (true: 1) say whether the outputs are equal.

    python tools/bench_tiling.py [--pixels 8192] [--rounds 3]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from sarhpc.archive.scene import Scene
from sarhpc.shards.writer import write_shard
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

TILE_PX = 512
PIXEL_M = 0.35
NATIVE_M = 0.2
BAND = 0.8


class OneScene:
    """An archive of one scene."""

    def __init__(self, scene: Scene) -> None:
        """Hold `scene`."""
        self.scene = scene

    def search(self, **_: object) -> Iterator[Scene]:
        """Yield the scene, whatever is asked."""
        yield self.scene


def write_speckle(path: Path, pixels: int) -> None:
    """A complex scene (pixels, pixels) of speckle in a 0.8 band as a tiled GeoTIFF, 0 dB."""
    rng = np.random.default_rng(0)
    side = 512
    band = np.abs(np.fft.fftfreq(side)) <= BAND / 2
    keep = np.outer(band, band) / np.sqrt(band.mean() ** 2)
    profile = {
        "driver": "GTiff",
        "width": pixels,
        "height": pixels,
        "count": 1,
        "dtype": "complex64",
        "crs": "EPSG:2154",
        "transform": Affine(NATIVE_M, 0, 700_000, 0, -NATIVE_M, 6_250_000),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
    }
    with rasterio.open(path, "w", **profile) as dataset:
        for row in range(0, pixels, side):
            for col in range(0, pixels, side):
                noise = rng.standard_normal((side, side, 2)).view(np.complex128)[..., 0]
                field = np.fft.ifft2(np.fft.fft2(noise) * keep) / np.sqrt(2)
                window = Window(col, row, side, side)
                dataset.write(field.astype(np.complex64), 1, window=window)


def plain_loop(path: Path, top: float, resampling: Resampling, out: Path) -> int:
    """Tiles written by the loop that most people would write first; returns their number."""
    with rasterio.open(path) as source, tarfile.open(out, "w") as tar:
        size = int(source.width * NATIVE_M / PIXEL_M)
        transform = source.transform * Affine.scale(PIXEL_M / NATIVE_M)
        grid = {"transform": transform, "width": size, "height": size, "resampling": resampling}
        count = 0
        with WarpedVRT(source, crs=source.crs, **grid) as vrt:
            for row in range(0, size - TILE_PX + 1, TILE_PX):
                for col in range(0, size - TILE_PX + 1, TILE_PX):
                    window = Window(col, row, TILE_PX, TILE_PX)
                    amplitude = np.abs(vrt.read(1, window=window))
                    add_plain_tile(tar, count, amplitude, top, vrt.window_transform(window))
                    count += 1
    return count


def add_plain_tile(
    tar: tarfile.TarFile, index: int, amplitude: np.ndarray, top: float, transform: Affine
) -> None:
    """Append PNG, master and metadata of one tile to the tar."""
    scale = float(amplitude.max()) / 65535
    png, master = io.BytesIO(), io.BytesIO()
    codes = np.round(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)
    Image.fromarray(codes).save(png, "PNG")
    np.save(master, np.round(amplitude / scale).astype(np.uint16))
    meta = {
        "key": f"{index:011d}",
        "affine": list(transform)[:6],
        "saturated_fraction": float(np.mean(amplitude > top)),
        "master_scale": scale,
    }
    members = {
        "sar.png": png.getvalue(),
        "sar16.npy": master.getvalue(),
        "meta.json": json.dumps(meta).encode(),
    }
    for name, data in members.items():
        info = tarfile.TarInfo(f"{index:011d}.{name}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def judge(tar: Path) -> tuple[float, float]:
    """Mean intensity of a tar's tiles in dB, and the looks of its first tile."""
    powers = []
    with tarfile.open(tar) as file:
        masters = {m.name: m for m in file if m.name.endswith("sar16.npy")}
        for name, member in masters.items():
            meta = file.extractfile(name.replace("sar16.npy", "meta.json"))
            codes = file.extractfile(member)
            assert meta is not None
            assert codes is not None
            scale = json.loads(meta.read())["master_scale"]
            powers.append((np.load(io.BytesIO(codes.read())) * scale) ** 2)
    first = powers[0]
    mean = np.mean([power.mean() for power in powers])
    return float(10 * np.log10(mean)), float(first.mean() ** 2 / first.var())


def project_loop(scene: Scene, inputs: dict[str, Any], cfg: TileConfig, out: Path) -> int:
    """Tiles written by one shard task of this project; returns their number."""
    return write_shard(out, tile_shard(0, inputs, OneScene(scene), cfg).samples).samples


def timed(work: Callable[[], int]) -> tuple[float, int]:
    """Processor seconds of `work`, which other processes do not stretch, and what it returned."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def compare(folder: Path, pixels: int, rounds: int) -> None:
    """Time all loops in turns and print tiles per second, and the ratios."""
    path = folder / "scene.tif"
    write_speckle(path, pixels)
    properties = {"sarhpc:range_direction": "+col", "sarhpc:calibration": "sigma0"}
    scene = Scene("bench", {"sar": path}, properties)
    split = SplitConfig(fractions=[1.0, 0.0, 0.0])
    cfg = TileConfig(tile_px=TILE_PX, pixel_m=PIXEL_M, split=split, shard_samples=10_000)
    survey_s, _ = timed(lambda: len(plan_scenes([scene], cfg).shards))
    [inputs] = plan_scenes([scene], cfg).shards
    top = inputs["scene"]["normalisation"]["top"]
    plain = (Resampling.bilinear, Resampling.cubic, Resampling.lanczos)
    loops: dict[str, Callable[[Path], int]] = {
        "sarhpc": lambda out: project_loop(scene, inputs, cfg, out),
        **{f"plain {how.name}": partial(plain_loop, path, top, how) for how in plain},
    }
    best = dict.fromkeys(loops, 0.0)
    for _ in range(rounds):
        for name, loop in loops.items():
            seconds, tiles = timed(partial(loop, folder / f"{name}.tar"))
            best[name] = max(best[name], tiles / seconds)
    print(f"machine={platform.machine()} scene={pixels}x{pixels} complex64 uncompressed")
    print(f"survey_s={survey_s:.2f} once per scene (share={inputs['scene']['surveyed']})")
    for name, rate in best.items():
        decibel, looks = judge(folder / f"{name}.tar")
        print(
            f"{name:15s} tiles_per_s={rate:5.1f} ratio={best['sarhpc'] / rate:4.2f} "
            f"mean_intensity_db={decibel:+.2f} looks={looks:.2f}"
        )


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pixels", type=int, default=8192, help="side of the scene, times 512")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments.pixels, arguments.rounds)


if __name__ == "__main__":
    main()
