"""Tiles a second of E1 to E6, and the memory of an evaluation by the size of its sets.

    python tools/bench_evaluate.py [--px 512] [--tiles 40] [--sets 1000,10000,100000] [--folder F]

The first part measures 8-bit tiles and tiles with a 16-bit master in one process, alone and through
a shard and a table. The second evaluates sets of so many tiles of 64 px with `all_tiles=true`, each
in a process of its own, and reports its peak memory. A set is links to one shard of 1,000 tiles.
Seconds are CPU seconds, so that a busy machine does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.comparison_plan import plan_comparison
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.image_sets import list_images
from sarhpc.measures.features import measure
from sarhpc.shards.images import encode_array, encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard
from sarhpc.stages.work.measuring import measure_parts, parts_in

SCENES = 20
SHARD_TILES = 1000
ALONE = """
import resource, sys, time
from pathlib import Path
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.stages.two_sets import evaluate_sets
real, synthetic, out = map(Path, sys.argv[1:])
config = EvaluateConfig(all_tiles=True, bootstrap=20, gallery=0, orientation_steps=0)
evaluate_sets(real, synthetic, out, config)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time())
"""


def amplitudes(count: int, px: int, seed: int) -> Iterable[NDArray[np.float32]]:
    """Single-look speckle over a step of 10 dB."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        level = np.where(np.arange(px) < px // 2, 0.1, 0.3)
        yield (level * rng.rayleigh(0.7, (px, px))).astype(np.float32)


def shard(path: Path, count: int, px: int, seed: int, master: bool = False) -> None:
    """A shard of so many tiles of 20 scenes."""
    law = {"mode": "mu+3sigma", "mu": 0.2, "sigma": 0.2, "top": 1.0}
    samples = []
    for number, tile in enumerate(amplitudes(count, px, seed)):
        meta = {"scene_id": f"s{number % SCENES}", "split": "val", "normalisation": law}
        members = {"sar.png": encode_gray8(np.rint(255 * np.clip(tile, 0, 1)).astype(np.uint8))}
        if master:
            members["sar16.npy"] = encode_array(np.rint(tile * 10_000).astype(np.uint16))
            meta["master_scale"] = 1e-4
        key = sample_key(int(path.stem), number)
        samples.append(Sample(key, {**members, "meta.json": encode_json(meta)}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, samples)


def speed(px: int, count: int, folder: Path) -> None:
    """Print tiles a second of measures alone, and of shards to tables."""
    tiles: list[Any] = list(amplitudes(count, px, 0))
    measure(tiles[:1])
    print(f"| E1 to E6 of {px} px alone, amplitude | {_rate(lambda: measure(tiles), count):.1f} |")
    codes = [np.rint(255 * np.clip(tile, 0, 1)).astype(np.uint8) for tile in tiles]
    print(f"| the same, 8-bit codes | {_rate(lambda: measure(codes), count):.1f} |")
    for name, master in (("16-bit masters", True), ("8-bit codes", False)):
        for part in ("real", "synthetic"):
            shard(folder / name / part / "000000.tar", count, px, 1, master)
        sets = [list_images(folder / name / part) for part in ("real", "synthetic")]
        planned = plan_comparison(sets[0], {"synthetic": sets[1]}, EvaluateConfig(all_tiles=True))
        parts = parts_in(planned, folder / name / "out")
        rate = _rate(lambda parts=parts: measure_parts(parts, 1, folder), 2 * count)  # type: ignore[misc]
        print(f"| shards to tables, {name} | {rate:.1f} |")


def _rate(work: Any, count: int) -> float:
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def memory(count: int, folder: Path) -> None:
    """Print peak memory and CPU seconds of an evaluation of two sets of `count` tiles of 64 px."""
    place = folder / str(count)
    for part, seed in (("real", 1), ("synthetic", 2)):
        source = folder / f"{part}.tar"
        if not source.exists():
            shard(folder / part / "000000.tar", SHARD_TILES, 64, seed)
            (folder / part / "000000.tar").rename(source)
        (place / part).mkdir(parents=True, exist_ok=True)
        for number in range(max(count // SHARD_TILES, 1)):
            link = place / part / f"{number:06d}.tar"
            if not link.exists():
                os.link(source, link)
    words = [sys.executable, "-c", ALONE, *(str(place / n) for n in ("real", "synthetic", "out"))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    peak, seconds = map(float, done.stdout.splitlines()[-1].split())
    print(
        f"| two sets of {count:,} tiles of 64 px | {peak:.0f} MiB | {seconds:.0f} s |", flush=True
    )


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--px", type=int, default=512)
    parser.add_argument("--tiles", type=int, default=40)
    parser.add_argument("--sets", default="1000,10000,100000", help="sizes of sets, or none: ''")
    parser.add_argument("--folder", help="of the sets; tables that are there are kept, as after "
                        "a run that was stopped (default: a temporary one)")  # fmt: skip
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="bench-evaluate-")
        )
        if arguments.tiles:
            print("| | tiles/s per core |\n|---|---|")
            speed(arguments.px, arguments.tiles, Path(folder))
        if arguments.sets:
            print("| | peak memory | CPU |\n|---|---|---|")
            for count in map(int, arguments.sets.split(",")):
                memory(count, Path(folder))


if __name__ == "__main__":
    main()
