"""What feeds a training step: tiles, or stored latents, as batches with everything drawn.

    python tools/bench_feed.py                     # 512 px, one and two loader threads

Reads real shards as `train` does. Each case runs in a process of its own, in turns; the first epoch
warms the page cache and, for stored latents, compares each with its tile; it is not counted. A rate
by CPU time is samples per second of CPU time of the whole process: what one core can feed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_loader import write_tars

from hpc.job.agreement import SingleProcess
from hpc.memory import keep_freed_memory
from sarhpc.diffusion.config import ObjectiveConfig
from sarhpc.shards.images import encode_array
from sarhpc.shards.loader import Cursor
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.shards.samples import ShardedSamples
from sarhpc.shards.writer import write_shard
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.data import TileBatch, feed
from sarhpc.training.denoising.latents import StoredLatents
from sarhpc.training.denoising.task import draw_batch

BATCH = 16
AUTOENCODER = "0" * 64
LATENTS, TILES = "stored latents", "tiles"


def write_latents(path: Path, samples: ShardedSamples, size: int) -> None:
    """Latents of noise for all samples: a read costs the same whatever they hold."""
    from hashlib import sha256

    generator = torch.Generator().manual_seed(0)

    def stored() -> Any:
        """One after the other."""
        for number in range(len(samples)):
            moments = torch.randn((8, size // 8, size // 8), generator=generator).numpy()
            meta = {
                "schema": "sarhpc.latents/1",
                "key": samples.key(number),
                "encoded_sha256": sha256(samples.encoded(number, "sar.png")).hexdigest(),
                "autoencoder_sha256": AUTOENCODER,
            }
            members = {"moments.npy": encode_array(moments), "meta.json": encode_json(meta)}
            yield Sample(samples.key(number), members)

    write_shard(path, stored())


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Samples per second, by the clock and by CPU time, of one case."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as the entry of a job does
    cfg = TrainConfig(global_batch=BATCH, loader_threads=arguments.threads)
    side = arguments.size // 8

    def drawn(batch: TileBatch) -> Any:
        """Everything that a step of Stable Diffusion draws."""
        return draw_batch(
            batch, seed=0, shape=(4, side, side), cfg=ObjectiveConfig(), timesteps=1000
        )

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_tars(folder, arguments.samples, arguments.size)
        samples = ShardedSamples(sorted(folder.glob("*.tar")))
        stored = None
        if arguments.only == LATENTS:
            write_latents(folder / "latents", samples, arguments.size)
            stored = StoredLatents([folder / "latents"], AUTOENCODER, "sar.png")
        batches = feed(cfg, samples, Cursor(), SingleProcess(), stored, drawn)
        for _ in itertools.islice(batches, len(samples) // BATCH):
            pass
        began, used, count = time.perf_counter(), time.process_time(), 0
        for _, batch in itertools.islice(batches, arguments.epochs * len(samples) // BATCH):
            count += len(batch.keys)
        clock, cpu = time.perf_counter() - began, time.process_time() - used
        batches.close()
    return {"clock": count / clock, "cpu": count / cpu}


def main() -> None:
    """Run every case in turns, and print medians and scaling."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--size", type=int, default=512, help="edge of a tile, px")
    parser.add_argument("--epochs", type=int, default=4, help="counted in each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=(LATENTS, TILES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments)))
        return
    found: dict[tuple[str, int], list[dict[str, float]]] = {
        (what, threads): [] for what in (TILES, LATENTS) for threads in (1, 2)
    }
    options = [f"--{name}={getattr(arguments, name)}" for name in ("samples", "size", "epochs")]
    for _ in range(arguments.turns):
        for (what, threads), rates in found.items():
            command = [sys.executable, __file__, f"--only={what}", f"--threads={threads}", *options]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rates.append(json.loads(output.splitlines()[-1]))
    for (what, threads), rates in found.items():
        clock = statistics.median(rate["clock"] for rate in rates)
        cpu = statistics.median(rate["cpu"] for rate in rates)
        alone = statistics.median(rate["clock"] for rate in found[what, 1])
        print(
            f"{what:14s} {threads} threads {clock:7.0f} samples/s by the clock, "
            f"{clock / (threads * alone):.2f} of {threads} times one, {cpu:7.0f} by CPU time"
        )


if __name__ == "__main__":
    main()
