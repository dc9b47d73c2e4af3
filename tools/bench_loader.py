"""Our training loader against webdataset, litdata and mosaicml-streaming, on the same samples.

    python tools/bench_loader.py                          # against webdataset
    python tools/bench_loader.py --peers PYTHON           # one that has litdata and streaming

Every contender reads the gray tile and the caption of each sample, shuffled, in batches of 16, and
returns float32 images (16, 512, 512, 3) in [-1, 1], with `--workers` threads (ours), or as many
processes and none (theirs). Each runs in a separate process, in turns; the first epoch warms the
page cache and is not counted. litdata and mosaicml-streaming need torchvision, whose dependencies
include another torch than this project's: they are in a separate environment, which
`make bench-loader` creates.
"""

from __future__ import annotations

import argparse
import functools
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
THEIRS = ("litdata", "mosaicml-streaming")


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

    def decoded(sample: dict[str, Any]) -> tuple[np.ndarray, str]:
        """Picture and caption of a sample."""
        return decode(sample["sar.png"]), sample["txt"].decode()

    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    pipe: Any = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
    pipe = pipe.shuffle(1000).map(decoded).batched(BATCH, partial=False)
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
            dataset, batch_size=BATCH, num_workers=workers, collate_fn=_png_batch
        )


def _png_batch(rows: list[dict[str, Any]]) -> Any:
    """A batch as a tensor, passed in shared memory; an array would go through a pipe."""
    import torch

    return torch.from_numpy(np.stack([decode(row["png"]) for row in rows]))


@functools.cache
def _import_streaming() -> tuple[Any, Any]:
    """mosaicml-streaming, and the operators that have to live as long as it."""
    import torch

    # torchvision's wheel is built for CUDA; on a CPU torch its import fails for want of these two.
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import streaming

    return streaming, operators


def write_streaming(folder: Path, count: int, size: int) -> None:
    """The same samples as MDS shards."""
    streaming, _operators = _import_streaming()
    columns = {"png": "bytes", "caption": "str"}
    with streaming.MDSWriter(out=str(folder), columns=columns, size_limit="64mb") as writer:
        for _, png in tiles(count, size):
            writer.write({"png": png, "caption": CAPTION})


def streaming_epochs(folder: Path, workers: int) -> Iterator[Any]:
    """Epochs of mosaicml-streaming, decoded in its workers."""
    import torch

    streaming, _operators = _import_streaming()
    dataset = streaming.StreamingDataset(
        local=str(folder), shuffle=True, shuffle_seed=0, batch_size=BATCH
    )
    while True:
        yield torch.utils.data.DataLoader(
            dataset, batch_size=BATCH, num_workers=workers, collate_fn=_png_batch, drop_last=True
        )


CONTENDERS: dict[str, tuple[Callable[[Path, int, int], None], Callable[[Path, int], Any]]] = {
    "sarhpc": (write_tars, ours),
    "webdataset": (write_tars, webdataset_epochs),
    "litdata": (write_litdata, litdata_epochs),
    "mosaicml-streaming": (write_streaming, streaming_epochs),
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
    parser.add_argument("--peers", help="interpreter that has litdata and streaming")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(run(arguments.only, arguments)))
        return
    pythons = dict.fromkeys(OURS, sys.executable)
    pythons |= dict.fromkeys(THEIRS, arguments.peers) if arguments.peers else {}
    rates: dict[tuple[str, int], list[float]] = {
        (name, workers): []
        for name in pythons
        for workers in ((arguments.workers,) if name == "sarhpc" else (0, arguments.workers))
    }
    options = [f"--{name}={getattr(arguments, name)}" for name in ("samples", "size", "epochs")]
    for _ in range(arguments.turns):
        for (name, workers), found in rates.items():
            command = [pythons[name], __file__, "--only", name, f"--workers={workers}", *options]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found += json.loads(output.splitlines()[-1])
    mine = statistics.median(rates["sarhpc", arguments.workers])
    for (name, workers), found in rates.items():
        rate = statistics.median(found)
        print(f"{name:18s} {workers} workers {rate:6.0f} samples/s  sarhpc is {mine / rate:.2f} x")


if __name__ == "__main__":
    main()
