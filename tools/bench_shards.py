"""Shard writing and reading against webdataset, on the same samples, in one process, in one run.

    python tools/bench_shards.py [--samples 400] [--rounds 5]

Both readers decode the gray image and the metadata of every sample. Each is timed `--rounds` times
in turn, and the best time counts, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image

from sarhpc.shards.images import decode_gray8, encode_array, encode_gray8
from sarhpc.shards.reader import ShardIndex, read_shard
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard


def speckle(size: int, rng: np.random.Generator) -> np.ndarray:
    """Single-look amplitude (H, W) in 8 bits, A / (mu + 3 sigma)."""
    amplitude = rng.rayleigh(size=(size, size))
    top = amplitude.mean() + 3 * amplitude.std()
    return np.round(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)


def make_samples(count: int, size: int) -> list[Sample]:
    """Samples with the members of a captioned tile."""
    rng = np.random.default_rng(0)
    tiles = [speckle(size, rng) for _ in range(16)]
    return [
        Sample(
            sample_key(0, index),
            {
                "sar.png": encode_gray8(tiles[index % 16]),
                "sar16.npy": encode_array(tiles[index % 16].astype(np.uint16) * 257),
                "meta.json": encode_json({"key": sample_key(0, index), "pixel_m": 0.35}),
                "txt": b"A SAR image of a river between fields",
            },
        )
        for index in range(count)
    ]


def read_ours(path: Path) -> int:
    """Samples decoded by our reader."""
    count = 0
    for sample in read_shard(path):
        decode_gray8(sample.members["sar.png"])
        count += len(sample.meta) > 0
    return count


def read_webdataset(path: Path) -> int:
    """Samples decoded by webdataset, with the cheapest decoders it allows."""
    handlers = [
        webdataset.handle_extension(
            "sar.png", lambda data: np.asarray(Image.open(io.BytesIO(data)))
        ),
        webdataset.handle_extension("meta.json", json.loads),
    ]
    dataset: Any = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return sum(1 for _ in dataset.decode(*handlers, only=["sar.png", "meta.json"]))


def read_raw_ours(path: Path) -> int:
    """Samples read by our reader, not decoded."""
    return sum(1 for _ in read_shard(path))


def read_raw_webdataset(path: Path) -> int:
    """Samples read by webdataset, not decoded."""
    dataset: Any = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return sum(1 for _ in dataset)


def write_webdataset(path: Path, samples: list[Sample]) -> int:
    """Samples written by webdataset's TarWriter."""
    with webdataset.TarWriter(str(path), mtime=0) as sink:
        for sample in samples:
            sink.write({"__key__": sample.key, **sample.members})
    return len(samples)


def rates(contenders: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Samples per second of each contender, best of `rounds`, taken in turn."""
    best = dict.fromkeys(contenders, 0.0)
    for _ in range(rounds):
        for name, work in contenders.items():
            start = time.perf_counter()
            count = work()
            best[name] = max(best[name], count / (time.perf_counter() - start))
    return best


def main() -> None:
    """Print one line per comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--size", type=int, default=512, help="edge of a tile, px")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    samples = make_samples(options.samples, options.size)
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder, "000000.tar"), Path(folder, "webdataset.tar")
        write_shard(path, samples)
        comparisons = {
            "read and decode": (lambda: read_ours(path), lambda: read_webdataset(path)),
            "read": (lambda: read_raw_ours(path), lambda: read_raw_webdataset(path)),
            "write": (
                lambda: write_shard(path, samples).samples,
                lambda: write_webdataset(other, samples),
            ),
        }
        for name, (ours, theirs) in comparisons.items():
            speed = rates({"sarhpc": ours, "webdataset": theirs}, options.rounds)
            listed = "  ".join(f"{who} {rate:8.0f}/s" for who, rate in speed.items())
            print(f"{name:16s} {listed}  ratio {speed['sarhpc'] / speed['webdataset']:.2f}")
        speed = rates({"index": lambda: len(ShardIndex.scan(path))}, options.rounds)
        print(f"{'index':16s} sarhpc {speed['index']:8.0f}/s")


if __name__ == "__main__":
    main()
