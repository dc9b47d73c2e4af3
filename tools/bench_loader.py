"""Our training loader beside webdataset and litdata, on the same samples.

    python tools/bench_loader.py                          # beside webdataset
    python tools/bench_loader.py --peers PYTHON           # an interpreter that has litdata

Every contender reads the gray tile and the caption of each sample, shuffled, in batches of 16, and
hands out float32 images (16, 512, 512, 3) in [-1, 1], with `--workers` threads (ours) or processes
(theirs). Each runs in a process of its own, in turns; the first epoch warms the page cache and is
not counted. litdata wants torchvision, which brings another torch than this project's; it reads
local folders without, in an environment of its own (`make bench-loader` makes it).
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BATCH = 16
CAPTION = "A SAR image of a river between fields"
OURS = ("sarhpc", "webdataset")
THEIRS = ("litdata",)


def decode(data: bytes) -> np.ndarray:
    """The tile (H, W, 3) float32 in [-1, 1] in a PNG, as the peers' users decode it."""
    gray = np.asarray(Image.open(io.BytesIO(data)), np.float32) / 127.5 - 1.0
    return np.repeat(gray[..., None], 3, axis=2)


def tiles(count: int, size: int) -> Iterator[tuple[str, bytes]]:
    """Keys and PNGs of single-look speckle, the same for every contender."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(16):
        amplitude = rng.rayleigh(size=(size, size))
        top = amplitude.mean() + 3 * amplitude.std()
        data = io.BytesIO()
        gray = np.round(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)
        Image.fromarray(gray).save(data, "PNG", compress_level=1)
        made.append(data.getvalue())
    for index in range(count):
        yield f"{index // 64:06d}{index % 64:05d}", made[index % 16]


def write_tars(folder: Path, count: int, size: int) -> None:
    """Our shards, 64 samples each; webdataset reads them as they are."""
    from itertools import groupby

    from sarhpc.shards.sample import Sample
    from sarhpc.shards.writer import write_shard

    for shard, group in groupby(tiles(count, size), key=lambda tile: tile[0][:6]):
        samples = (Sample(k, {"sar.png": png, "txt": CAPTION.encode()}) for k, png in group)
        write_shard(folder / f"{shard}.tar", samples)


def ours(folder: Path, workers: int) -> Iterator[Any]:
    """Epochs of our loader."""
    from itertools import islice

    from sarhpc.shards.loader import Cursor, SampleOrder, batches, prefetch
    from sarhpc.shards.samples import ShardedSamples

    samples = ShardedSamples(sorted(folder.glob("*.tar")))
    plan = batches(SampleOrder(0, len(samples)), Cursor(), BATCH)
    stream = prefetch(samples.load, plan, threads=workers)
    while True:
        yield (
            np.stack([image for image, _ in b]) for _, b in islice(stream, len(samples) // BATCH)
        )


def webdataset_epochs(folder: Path, workers: int) -> Iterator[Any]:
    """Epochs of webdataset with a shuffle buffer of 1,000 samples."""
    import webdataset

    def told(sample: dict[str, Any]) -> tuple[np.ndarray, str]:
        """Picture and caption of a sample."""
        return decode(sample["sar.png"]), sample["txt"].decode()

    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    pipe: Any = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
    pipe = pipe.shuffle(1000).map(told).batched(BATCH, partial=False)
    while True:
        yield (b for b, _ in webdataset.WebLoader(pipe, batch_size=None, num_workers=workers))


def write_litdata(folder: Path, count: int, size: int) -> None:
    """The same samples as litdata chunks."""
    import litdata

    rows = [(png, CAPTION) for _, png in tiles(count, size)]
    litdata.optimize(_litdata_row, rows, str(folder), chunk_bytes="64MB", num_workers=1)


def _litdata_row(row: tuple[bytes, str]) -> dict[str, Any]:
    return {"png": row[0], "caption": row[1]}


def litdata_epochs(folder: Path, workers: int) -> Iterator[Any]:
    """Epochs of litdata, decoded in its workers."""
    import litdata

    dataset = litdata.StreamingDataset(str(folder), shuffle=True, drop_last=True)
    while True:
        yield litdata.StreamingDataLoader(
            dataset, batch_size=BATCH, num_workers=workers, collate_fn=_litdata_batch
        )


def _litdata_batch(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.stack([decode(row["png"]) for row in rows])


CONTENDERS: dict[str, tuple[Callable[[Path, int, int], None], Callable[[Path, int], Any]]] = {
    "sarhpc": (write_tars, ours),
    "webdataset": (write_tars, webdataset_epochs),
    "litdata": (write_litdata, litdata_epochs),
}


def run(name: str, arguments: argparse.Namespace) -> list[float]:
    """Samples per second of each counted epoch of one contender."""
    write, epochs = CONTENDERS[name]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch), arguments.samples, arguments.size)
        for epoch in epochs(Path(scratch), arguments.workers):
            began, count = time.perf_counter(), 0
            for batch in epoch:
                assert tuple(batch.shape[1:]) == (arguments.size, arguments.size, 3)
                count += len(batch)
            found.append(count / (time.perf_counter() - began))
            if len(found) == arguments.epochs + 1:
                break
    return found[1:]


def main() -> None:
    """Run every contender in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--size", type=int, default=512, help="edge of a tile, px")
    parser.add_argument("--epochs", type=int, default=2, help="counted in each turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peers", help="interpreter that has litdata")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(run(arguments.only, arguments)))
        return
    pythons = dict.fromkeys(OURS, sys.executable)
    pythons |= dict.fromkeys(THEIRS, arguments.peers) if arguments.peers else {}
    sizes = ("samples", "size", "epochs", "workers")
    words = [f"--{name}={getattr(arguments, name)}" for name in sizes]
    rates: dict[str, list[float]] = {name: [] for name in pythons}
    for _ in range(arguments.turns):
        for name, python in pythons.items():
            command = [python, __file__, "--only", name, *words]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rates[name] += json.loads(told.splitlines()[-1])
    mine = statistics.median(rates["sarhpc"])
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:20s} {rate:8.0f} samples/s  sarhpc is {mine / rate:.2f} x")


if __name__ == "__main__":
    main()
