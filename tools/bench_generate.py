"""Our generation against the stock diffusers pipeline, and the whole job against its sampler.

    python tools/bench_generate.py                               # the embedded model, on this CPU
    python tools/bench_generate.py --shape sd15 --px 256 --steps 2 --images 4 --batch 2 --rounds 2
    python tools/bench_generate.py --model DIR --dtype bfloat16 --batch 16 --images 64

Same model, prompts, seeds, scheduler, dtype, batch and threads; the images are compared first. The
sides take turns in each round, stock and ours in processes of their own, and a figure is the median
over the rounds of the ratio within one round. `sampler` makes the images in memory, as `stock`
does; `job` plans, samples, encodes, writes and records shards, as an array element does.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from bench_step import SHAPES, make_bundle

from hpc.publish import publish_json
from sarhpc.generation.config import GenerateConfig

STOCK, SAMPLER, JOB = SIDES = ("stock", "sampler", "job")
PROMPTS = ("a lake", "a dense forest", "a town with houses", "a field crossed by a road")
LARGEST_DIFFERENCE = 1.01 / 255
"""Of images of equal output; convolutions of another batch size round otherwise."""


@dataclasses.dataclass(frozen=True)
class Question:
    """What all sides make."""

    model: str
    cfg: GenerateConfig


@dataclasses.dataclass(frozen=True)
class Round:
    """One turn of one side."""

    wall_s: float
    cpu_s: float


def stock_side(asked: Question) -> Callable[[], Any]:
    """Images as the diffusers pipeline makes them, with its own defaults for all else."""
    import diffusers
    import torch

    from sarhpc.generation.model import _SCHEDULERS

    cfg = asked.cfg
    torch.set_num_threads(cfg.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        asked.model, dtype=getattr(torch, cfg.dtype), local_files_only=True
    ).to(device)
    scheduler, options = _SCHEDULERS[cfg.scheduler]
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **options)
    pipeline.set_progress_bar_config(disable=True)
    requests = requests_of(cfg)

    def images() -> Any:
        """The images of the stock pipeline (N, H, W, 3)."""
        made = []
        for first in range(0, len(requests), cfg.batch):
            batch = requests[first : first + cfg.batch]
            made.append(
                pipeline(
                    prompt=[request.prompt for request in batch],
                    negative_prompt=[cfg.negative_prompt] * len(batch),
                    num_inference_steps=cfg.steps,
                    guidance_scale=cfg.guidance,
                    height=cfg.height_px,
                    width=cfg.width_px,
                    generator=[torch.Generator("cpu").manual_seed(r.seed) for r in batch],
                    output_type="np",
                ).images
            )
        return np.concatenate(made)

    return images


def sampler_side(asked: Question) -> Callable[[], Any]:
    """Images as our sampler makes them, in memory."""
    from hpc.memory import keep_freed_memory
    from sarhpc.generation.embeddings import TextEmbeddings
    from sarhpc.generation.sampler import sample_images
    from sarhpc.stages.work.image_shards import loaded_pipeline

    keep_freed_memory()  # as the entry of a job does
    cfg = asked.cfg
    pipeline = loaded_pipeline(Path(asked.model), cfg)
    requests = requests_of(cfg)

    def images() -> Any:
        """The same images by our sampler."""
        embeddings = TextEmbeddings(pipeline, cfg.batch)
        return np.concatenate(
            [
                sample_images(
                    pipeline,
                    requests[first : first + cfg.batch],
                    cfg,
                    cfg.batch,
                    cfg.threads,
                    embeddings=embeddings,
                )
                for first in range(0, len(requests), cfg.batch)
            ]
        )

    return images


def job_side(asked: Question) -> Callable[[], Any]:
    """The same images as published shards with records; the model stays loaded."""
    from hpc.memory import keep_freed_memory
    from hpc.store.plan import ShardTask
    from hpc.store.rundir import RunDir, create_run
    from sarhpc.generation.plan import plan_generation
    from sarhpc.stages.work.image_shards import generated_shard
    from sarhpc.stages.work.sharded import ShardResult, make_and_record

    keep_freed_memory()
    cfg = asked.cfg
    scratch = tempfile.TemporaryDirectory(prefix="bench-generate-")
    root = Path(scratch.name)
    run = create_run(root / "run", "generate: {}\n", "f00d")
    turns = iter(range(10**6))

    def make(run: RunDir, task: ShardTask) -> ShardResult:
        path = root / "data" / f"{task.id}.tar"
        return generated_shard(run, task, Path(asked.model), cfg, path, "f00d")

    def images() -> None:
        """Every shard of the plan, as the stage makes it."""
        assert scratch.name, "kept as long as this side"
        plan = f"{next(turns):016x}"
        for number, inputs in enumerate(plan_generation(cfg)):
            task = ShardTask(f"{number:06d}", {**inputs, "model_sha": "m" * 64})
            make_and_record(make, str(run.root), "generate", plan, 0, task)

    return images


SIDE_OF = {STOCK: stock_side, SAMPLER: sampler_side, JOB: job_side}
PROCESSES = ((STOCK,), (SAMPLER, JOB))
"""Sides of each process; ours share their model."""


def requests_of(cfg: GenerateConfig) -> list[Any]:
    """The images of all shards, in order."""
    from sarhpc.generation.plan import plan_generation, shard_requests

    return [request for inputs in plan_generation(cfg) for request in shard_requests(inputs)]


def timed(images: Callable[[], Any]) -> Round:
    """One turn."""
    wall, cpu = time.perf_counter(), time.process_time()
    images()
    return Round(time.perf_counter() - wall, time.process_time() - cpu)


def serve(names: Sequence[str], asked: Question, pipe: Connection) -> None:
    """Sides in a process of their own: first the images, then a turn of each side that is named."""
    sides = {name: SIDE_OF[name](asked) for name in names}
    # The warm-up is what is compared.
    pipe.send(sides[names[0]]())
    while (name := pipe.recv()) is not None:
        pipe.send(timed(sides[name]))


class Sides:
    """Sides that take turns in one process."""

    def __init__(self, names: Sequence[str], asked: Question) -> None:
        """Start the process, which loads the model and makes the images once."""
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=serve, args=(names, asked, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.images = self._pipe.recv()

    def turn(self, name: str) -> Round:
        """One turn of a side, while all others wait."""
        self._pipe.send(name)
        found: Round = self._pipe.recv()
        return found

    def end(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def race(
    asked: Question, rounds: int, seconds: float = float("inf")
) -> tuple[float, dict[str, list[Round]]]:
    """Largest difference of the images of ours to stock's, and the turns of each side.

    No round begins after so many seconds.
    """
    until = time.monotonic() + seconds
    stock, ours = (Sides(names, asked) for names in PROCESSES)
    difference = float(np.abs(stock.images - ours.images).max())
    found: dict[str, list[Round]] = {name: [] for name in SIDES}
    for number in range(rounds):
        if number and time.monotonic() >= until:
            break
        for name in SIDES[:: -1 if number % 2 else 1]:
            found[name].append((stock if name == STOCK else ours).turn(name))
    for process in (stock, ours):
        process.end()
    return difference, found


def ratio(found: dict[str, list[Round]], faster: str, than: str, clock: str = "wall_s") -> float:
    """Median over the rounds of how many times as fast one side was as the other."""
    pairs = zip(found[than], found[faster], strict=True)
    return statistics.median(getattr(a, clock) / getattr(b, clock) for a, b in pairs)


def question(arguments: argparse.Namespace, folder: Path) -> Question:
    """What is asked of all sides; a random model is made where a published shape is named."""
    model = arguments.model
    if arguments.shape != "embedded":
        model = make_bundle(folder, arguments.shape)
    if model is None:
        from sarhpc.stages.inputs.paths import model_folder

        model = model_folder("embedded:sar")
    cfg = GenerateConfig(
        prompts=list(PROMPTS),
        images=arguments.images,
        steps=arguments.steps,
        batch=arguments.batch,
        threads=arguments.threads,
        dtype=arguments.dtype,
        scheduler=arguments.scheduler,
        height_px=arguments.px,
        width_px=arguments.px,
        shard_samples=arguments.shard or arguments.images,
    )
    return Question(str(model), cfg)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the images differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="diffusers folder (default: embedded:sar)")
    parser.add_argument("--shape", default="embedded", choices=SHAPES, help="random weights")
    parser.add_argument("--images", type=int, default=16, help="images a turn")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--shard", type=int, help="images a shard (default: all)")
    parser.add_argument("--px", type=int, help="height and width (default: the model's)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--scheduler", default="ddim")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round later")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        asked = question(arguments, Path(scratch))
        difference, found = race(asked, arguments.rounds, arguments.seconds)
    images = arguments.images
    print(f"{'side':<10}{'images/s':>10}{'CPU s/image':>13}{'of stock':>10}{'by CPU time':>13}")
    for name in SIDES:
        wall = statistics.median(r.wall_s for r in found[name])
        cpu = statistics.median(r.cpu_s for r in found[name])
        times, by_cpu = ratio(found, name, STOCK), ratio(found, name, STOCK, "cpu_s")
        print(f"{name:<10}{images / wall:>10.3f}{cpu / images:>13.3f}{times:>10.2f}{by_cpu:>13.2f}")
    share, by_cpu = ratio(found, JOB, SAMPLER), ratio(found, JOB, SAMPLER, "cpu_s")
    print(f"the job runs at {100 * share:.1f} % of the sampler ({100 * by_cpu:.1f} % by CPU time)")
    print(f"largest difference of pixels to stock: {255 * difference:.2g} of 255")
    print(f"{len(found[STOCK])} rounds of {images} images")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if arguments.json is not None:
        turns = {name: [vars(r) for r in rounds] for name, rounds in found.items()}
        facts = {"turns": turns, "images": images, "difference": difference}
        facts["arguments"] = {name: str(value) for name, value in vars(arguments).items()}
        publish_json(arguments.json, facts)
    return 0 if difference <= LARGEST_DIFFERENCE else 1


if __name__ == "__main__":
    sys.exit(main())
