"""Lengths and rates of a training run, as pure functions of configuration and step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpc.errors import ConfigError
from sarhpc.training.config import LoopConfig, TrainConfig


@dataclass(frozen=True)
class Length:
    """How long a run is. Epochs follow each other without a gap: no sample is left over."""

    samples: int
    global_batch: int
    steps: int
    accumulation: int
    """Forward passes per rank and step."""

    def epoch(self, step: int) -> int:
        """Epochs completed after `step` steps."""
        return step * self.global_batch // self.samples

    def ends_epoch(self, step: int) -> bool:
        """Whether the last of `step` steps completed an epoch."""
        return step > 0 and self.epoch(step) > self.epoch(step - 1)


def length(cfg: TrainConfig, samples: int, world: int) -> Length:
    """Steps and accumulation for `samples` samples on `world` ranks.

    Raises:
        ConfigError: the global batch does not divide among ranks and micro-batches.
    """
    passes = accumulation(cfg.global_batch, cfg.micro_batch, world)
    steps = math.ceil(cfg.epochs * samples / cfg.global_batch)
    if cfg.max_steps is not None:
        steps = min(steps, cfg.max_steps)
    return Length(samples, cfg.global_batch, steps, passes)


def fitting_micro_batch(
    most: int, global_batch: int, world: int, name: str = "global_batch"
) -> int:
    """The largest micro-batch up to `most` of which a rank's share of the batch is a multiple.

    Args:
        most: samples that a forward pass of one rank may take.
        global_batch: samples of a step over all ranks.
        world: number of ranks.
        name: what a message calls the global batch.

    Raises:
        ConfigError: the global batch does not divide among the ranks; names the numbers that do.
    """
    if global_batch % world:
        fit = [str(n) for n in range(1, global_batch + 1) if global_batch % n == 0]
        shown = ", ".join(fit if len(fit) <= 12 else [*fit[:11], "...", fit[-1]])
        raise ConfigError(
            f"{name}={global_batch} does not divide among {world} ranks: use one of {shown} "
            "(cluster.ranks, or nodes times tasks_per_node in the profile), or another batch"
        )
    share = global_batch // world
    return max(size for size in range(1, min(most, share) + 1) if share % size == 0)


def accumulation(
    global_batch: int, micro_batch: int, world: int, name: str = "global_batch"
) -> int:
    """Forward passes per rank and step; `name` is what a message calls the global batch.

    Raises:
        ConfigError: the global batch does not divide among ranks and micro-batches.
    """
    share = micro_batch * world
    if global_batch % share:
        raise ConfigError(
            f"{name}={global_batch} is no multiple of micro_batch x ranks = "
            f"{micro_batch} x {world}; change one of the three"
        )
    return global_batch // share


def rate_scale(cfg: TrainConfig, step: int, steps: int) -> float:
    """Factor on both learning rates at `step` (from 0) of `steps`."""
    if step < cfg.warmup_steps:
        return (step + 1) / cfg.warmup_steps
    if cfg.lr_schedule == "constant":
        return 1.0
    done = (step - cfg.warmup_steps) / max(1, steps - cfg.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def ema_decay(cfg: TrainConfig | LoopConfig, step: int) -> float:
    """Decay of the average at `step` (from 0): a young average follows quickly."""
    return min(cfg.ema_decay or 0.0, (1 + step) / (10 + step))
