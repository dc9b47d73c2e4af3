"""Step time of the training and its parts, on random tiles.

    python tools/bench_step.py                          # the embedded shape, drawn at random
    python tools/bench_step.py --bundle DIR --zero 2    # a bundle of your own
    RANK=0 WORLD_SIZE=2 ... python tools/bench_step.py  # once per rank, as srun starts them

Prints one table (median over the steps after the warm-up) and, with --json, the numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpc.config import loads, to_yaml
from hpc.job.checkpoint import CheckpointStore
from hpc.job.stop import StopRequest
from hpc.memory import keep_freed_memory
from hpc.publish import publish_json
from sarhpc.training.config import TrainConfig
from sarhpc.training.metrics.log import PARTS, read_rows

CAPTIONS = ("an aerial view of a forest", "an aerial view of a village between fields")


@dataclass(frozen=True)
class RandomTiles:
    """Tiles of noise: a step costs the same whatever they show."""

    n: int
    px: int

    def __len__(self) -> int:
        return self.n

    def key(self, number: int) -> str:
        """Key of a tile."""
        return f"{number:011d}"

    def load(self, number: int, image_member: str) -> tuple[Any, str]:
        """Tile (px, px, 3) and caption."""
        image = np.random.default_rng(number).uniform(-1, 1, (self.px, self.px, 3))
        return image.astype(np.float32), self.caption(number)

    def encoded(self, number: int, image_member: str) -> bytes:
        """What stands for its file."""
        return f"{image_member} {number}".encode()

    def caption(self, number: int) -> str:
        """Its caption alone."""
        return CAPTIONS[number % 2]


@dataclass
class CpuTimes:
    """CPU time of the process at the end of each step: on a busy machine the clock says less."""

    at: list[float] = field(default_factory=list)

    def note(self, step: int, own_s: float) -> None:
        """Called at the end of each step."""
        self.at.append(time.process_time())


SHAPES = ("embedded", "sd15", "sdxl")


def make_bundle(folder: Path, shape: str = "embedded") -> Path:
    """A bundle with random weights: of the embedded shape, or of a published one in full."""
    from sarhpc.diffusion.bundle import new_bundle, save_bundle
    from sarhpc.diffusion.config import BundleConfig
    from sarhpc.diffusion.families.registry import FAMILIES
    from sarhpc.diffusion.tokenizer import train_clip_tokenizer

    published = {family.key: family.published for family in FAMILIES}
    cfg = published.get(shape, BundleConfig())
    tokenizer = train_clip_tokenizer(CAPTIONS, 540, folder / "tokenizer")
    bundle = new_bundle(cfg, tokenizer)
    if shape in published:
        # All words of the published vocabulary learn, whichever are read.
        for encoder in bundle.encoders:
            encoder.resize_token_embeddings(cfg.vocab_size, mean_resizing=False)
    save_bundle(bundle, folder / "bundle")
    return folder / "bundle"


def configure(arguments: argparse.Namespace) -> TrainConfig:
    """The training to measure: no checkpoints before the end, no grids, every step logged."""
    cfg = TrainConfig(
        global_batch=arguments.global_batch,
        micro_batch=arguments.micro_batch,
        max_steps=arguments.warmup + arguments.steps,
        epochs=10**6,
        zero_stage=arguments.zero,
        precision=arguments.precision,
        cache_latents=arguments.cache_latents,
        gradient_checkpointing=arguments.gradient_checkpointing,
        threads=arguments.threads,
        validation_every_steps=0,
        checkpoint_every_s=float("inf"),
    )
    return loads(TrainConfig, to_yaml(cfg), arguments.set)


def _store_latents(bundle: Path, samples: RandomTiles, path: Path) -> tuple[Path, ...]:
    """Latents of all tiles, as the stage `encode` leaves them."""
    import torch

    from sarhpc.diffusion.bundle import load_autoencoder
    from sarhpc.shards.writer import write_shard
    from sarhpc.training.denoising.latents import encode_samples

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = load_autoencoder(bundle / "vae")
    write_shard(path, encode_samples(samples, vae, device, "sar.png", flipped=False))
    return (path,)


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Rows of the measured steps, with their CPU time; empty on other ranks than the first."""
    from sarhpc.diffusion.bundle import load_bundle
    from sarhpc.training.context import TrainContext
    from sarhpc.training.denoising.task import train
    from sarhpc.training.ranks import join, leave

    cfg = configure(arguments)
    ranks = join(cfg.threads, deterministic=cfg.deterministic, seed=0)
    folder = Path(ranks.broadcast(str(folder)))
    bundle = arguments.bundle or folder / "bundle"
    if arguments.bundle is None and ranks.rank == 0:
        make_bundle(folder)
    ranks.barrier()
    samples = RandomTiles(arguments.samples, load_bundle(bundle).tile_px)
    store = CheckpointStore(folder / "checkpoints", ranks, 1)
    times = CpuTimes()
    ctx = TrainContext(folder, store, StopRequest(ranks), times)
    latents: tuple[Path, ...] = ()
    if arguments.latents_stored:
        latents = _store_latents(bundle, samples, folder / f"latents{ranks.rank}.tar")
    with _attention(stores_scores=arguments.scores_stored):
        train(cfg, bundle, samples, ranks, ctx, latents=latents)
    leave()
    if ranks.rank > 0:
        return []
    rows = read_rows(folder / "metrics.jsonl")
    used = [None, *(after - before for before, after in itertools.pairwise(times.at))]
    return [row | {"cpu_s": cpu} for row, cpu in zip(rows, used, strict=True)][arguments.warmup :]


def _attention(*, stores_scores: bool) -> contextlib.AbstractContextManager[None]:
    """Attention as torch chooses it, or written out with its scores in memory."""
    if not stores_scores:
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)  # type: ignore[no-any-return]


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Median seconds of the step and of each part, and what no part accounts for."""
    step = statistics.median(row["step_s"] for row in rows)
    parts = {part: statistics.median(row[f"{part}_s"] for row in rows) for part in PARTS}
    return {**parts, "other": max(0.0, step - sum(parts.values())), "step": step}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3, help="steps left out of the medians")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--zero", type=int, default=2, choices=(0, 1, 2, 3))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--cache-latents", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    parser.add_argument("--scores-stored", action="store_true", help="attention without SDPA")
    parser.add_argument(
        "--latents-stored", action="store_true", help="as the stage `encode` leaves them"
    )
    parser.add_argument(
        "--memory-returned", action="store_true", help="freed memory goes back to the system"
    )
    parser.add_argument("--set", nargs="*", default=[], help="more of the training, key=value")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not arguments.memory_returned:
        keep_freed_memory()  # as the entry of a job does
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(arguments, Path(scratch))
    if not rows:
        return 0
    seconds = summarise(rows)
    for name, value in seconds.items():
        print(f"{name:<10} {value * 1e3:9.1f} ms  {100 * value / seconds['step']:5.1f} %")
    print(f"samples/s  {arguments.global_batch / seconds['step']:9.2f}")
    print(f"memory     {max(row['memory_gb'] for row in rows):9.2f} GB of rank 0")
    if arguments.json is not None:
        values = {name: str(value) for name, value in vars(arguments).items()}
        memory = max(row["memory_gb"] for row in rows)
        steps = [row["step_s"] for row in rows]
        # On one rank of several, the share of each.
        flops = rows[-1]["tflops"] * 1e12 * rows[-1]["step_s"]
        facts = {"seconds": seconds, "steps_s": steps, "memory_gb": memory, "flops": flops}
        facts["cpu_s"] = [row["cpu_s"] for row in rows]
        facts["arguments"] = values
        publish_json(arguments.json, facts)
    print(json.dumps({"python": sys.version.split()[0], "steps": len(rows)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
