"""A tiny Stable Diffusion bundle, random tiles, and ranks started as real processes.

The processes are forked from a server that has the heavy imports behind it, so that a test pays for
its own work only. Each has its own rank, memory and signals, and dies of a real SIGKILL.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from forked import server
from numpy.typing import NDArray
from tiny_bundle import CAPTIONS

from hpc.memory import keep_freed_memory
from sarhpc.training import state
from sarhpc.training.config import TrainConfig

if TYPE_CHECKING:
    from hpc.job.agreement import RankGroup
    from sarhpc.training.checkpoints.partition import Partition
    from sarhpc.training.denoising.model import Denoiser


@dataclass(frozen=True)
class RandomTiles:
    """Random images with captions; a number can be poisoned with NaN, and reading can be slow."""

    n: int = 20
    px: int = 32
    poisoned: int | None = None
    read_s: float = 0.0
    said: int = 1
    """How often each caption is said over."""

    def __len__(self) -> int:
        return self.n

    def key(self, number: int) -> str:
        return f"{number:011d}"

    def load(self, number: int, image_member: str) -> tuple[Any, str]:
        time.sleep(self.read_s)
        image = np.random.default_rng(number).uniform(-1, 1, (self.px, self.px, 3))
        if number == self.poisoned:
            image[:] = np.nan
        caption = " ".join([CAPTIONS[number % len(CAPTIONS)]] * self.said)
        return image.astype(np.float32), caption


@dataclass(frozen=True)
class RadarTiles(RandomTiles):
    """Random tiles whose captions hold the token."""

    def load(self, number: int, image_member: str) -> tuple[Any, str]:
        image, caption = super().load(number, image_member)
        return image, f"<SAR> image of {caption}"


@dataclass(frozen=True)
class Job:
    """What every rank of a training is told."""

    base: Path
    root: Path
    cfg: TrainConfig
    attempt: int = 1
    samples: RandomTiles = field(default_factory=RandomTiles)
    faults: dict[int, str] = field(default_factory=dict)
    """SARHPC_FAULT by rank."""
    keep_every: int | None = None
    latents: tuple[Path, ...] = ()
    scores: Mapping[int, float] = field(default_factory=dict)
    """What the grid of each step is judged; none judges no grid."""


def tiny_config(**changes: Any) -> TrainConfig:
    """A training of a few steps of a few milliseconds."""
    values = {
        "global_batch": 8,
        "micro_batch": 2,
        "max_steps": 6,
        "lr_unet": 1e-3,
        "lr_text_encoder": 1e-4,
        "warmup_steps": 2,
        "ema_decay": 0.9,
        "precision": "fp32",
        "validation_every_steps": 0,
        "validation_prompts": ["a forest", "a village"],
        "validation_seeds": [3],
        "validation_steps": 2,
        "loader_threads": 1,
    }
    return TrainConfig(**{**values, **changes})


class Started(Protocol):
    """A job as far as starting its ranks needs to know it."""

    @property
    def root(self) -> Path: ...

    @property
    def faults(self) -> dict[int, str]: ...


def enter_rank(job: Started, rank: int, world: int, port: int) -> None:
    """Make this process a rank, as a Slurm task would find itself."""
    keep_freed_memory()
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    if rank in job.faults:
        os.environ["SARHPC_FAULT"] = job.faults[rank]
    if not any(":wait" in fault for fault in job.faults.values()):
        # What is killed after a step has the checkpoint of that step, however busy the disk is.
        state.AT_ONCE_S = 60.0


def rank_main(job: Job, rank: int, world: int, port: int) -> None:
    """One rank, from its environment to its exit code."""
    from hpc.errors import HpcError

    enter_rank(job, rank, world, port)
    try:
        run_training(job)
    except HpcError as error:
        (job.root / f"error_{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        raise SystemExit(error.exit_code) from error


@dataclass(frozen=True)
class _Judge:
    """Judges the grids in their order as the job was told."""

    job: Job

    def __call__(self, sampled: NDArray[np.uint8]) -> dict[str, float]:
        from sarhpc.training.judged import read_judged

        assert sampled.dtype == np.uint8
        assert sampled.shape == (4, 32, 32)
        judged = {row["step"] for row in read_judged(self.job.root / "validation")}
        step = min(set(self.job.scores) - judged)
        return {"E5_lsd": 1.0, "score": self.job.scores[step]}


def run_training(job: Job) -> Any:
    """Train with the real store, stop request and ranks, in this process."""
    from hpc.job.checkpoint import CheckpointStore
    from hpc.job.stop import StopRequest
    from sarhpc.training.context import TrainContext
    from sarhpc.training.denoising.task import train
    from sarhpc.training.judged import best_first
    from sarhpc.training.ranks import join, leave

    cfg = job.cfg
    ranks = join(cfg.threads, deterministic=cfg.deterministic, seed=cfg.seed)
    store = CheckpointStore(
        job.root / "checkpoints",
        ranks,
        job.attempt,
        keep_every=job.keep_every,
        also_keep=lambda: best_first(job.root / "validation")[:1],
    )
    judge = _Judge(job) if job.scores else None
    with StopRequest(ranks) as stop:
        ctx = TrainContext(job.root, store, stop)
        result = train(cfg, job.base, job.samples, ranks, ctx, latents=job.latents, judge=judge)
    print(f"rank {ranks.rank}: {result}", flush=True)
    leave()
    return result


def start(
    job: Started, world: int = 2, target: Callable[..., None] = rank_main
) -> list[BaseProcess]:
    """Start the ranks of a job."""
    job.root.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    context = server()
    processes: list[BaseProcess] = [
        context.Process(target=target, args=(job, rank, world, port)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes: Sequence[BaseProcess], timeout_s: float = 400) -> list[int | None]:
    """Exit codes of all ranks; -9 is a SIGKILL. Ranks that hang are killed and give None."""
    end = time.monotonic() + timeout_s
    codes: list[int | None] = []
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        codes.append(process.exitcode)
        if process.is_alive():
            process.kill()
            process.join()
    return codes


def train_ranks(job: Job, world: int = 2, timeout_s: float = 400) -> list[int | None]:
    """Exit codes of a job's ranks."""
    return finish(start(job, world), timeout_s)


def step_folder(job: Started, step: int) -> Path:
    return job.root / "checkpoints" / f"step_{step:08d}"


def contents(checkpoint: Path) -> dict[str, Any]:
    """Everything a checkpoint holds, by file, and its cursor."""
    from safetensors.torch import load_file

    held: dict[str, Any] = {
        "state": json.loads((checkpoint / "MANIFEST.json").read_text())["state"]
    }
    for path in sorted(checkpoint.rglob("*.pt")):
        held[str(path.relative_to(checkpoint))] = torch.load(path, weights_only=False)
    for path in sorted(checkpoint.rglob("*.safetensors")):
        held[str(path.relative_to(checkpoint))] = load_file(path)
    return held


def start_engine(
    cfg: TrainConfig, model: Denoiser, ranks: RankGroup, accumulation: int
) -> tuple[Any, Partition]:
    """A DeepSpeed engine around `model` with AdamW over its named groups, and its partition."""
    from sarhpc.training.denoising.model import prepare
    from sarhpc.training.engine import trainable_weights, wrap_in_engine

    full = trainable_weights(model)
    optimizer = prepare(cfg, model, ranks.device)
    return wrap_in_engine(cfg, model, optimizer, full, ranks, accumulation)


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two nested structures are not the same to the last bit."""
    if type(one) is not type(other):
        return [f"{at}: {type(one)} and {type(other)}"]
    if isinstance(one, torch.Tensor):
        equal = one.dtype == other.dtype and torch.equal(one, other)
        return [] if equal else [f"{at}: tensors differ"]
    if isinstance(one, Mapping):
        names = [f"{at}: keys differ"] if one.keys() != other.keys() else []
        both = one.keys() & other.keys()
        return names + [d for key in both for d in differences(one[key], other[key], f"{at}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{at}: lengths differ"]
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{at}/{i}")]
    if hasattr(one, "__dict__") and not callable(one):
        return differences(vars(one), vars(other), at)
    return [] if one == other or one is other else [f"{at}: {one!r} and {other!r}"]
