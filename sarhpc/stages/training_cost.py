"""What training will take, before it is submitted: steps, memory of each GPU, GPU-hours.

Parameters, operations and activations are counted from the models' shapes; DeepSpeed's share of
the memory follows from its configuration; utilisation, fragmentation and what libraries reserve
are estimates, named where they are shown.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, HpcError
from hpc.store.plan import Plan
from sarhpc.diffusion.families.registry import family_of
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import FETCHED, model_folder
from sarhpc.stages.inputs.sizes import assumed_side
from sarhpc.training.estimate.footprint import (
    CARDS,
    FRAGMENTATION,
    GIB,
    RESERVED_BYTES,
    Counts,
    checkpoint_bytes,
    footprint,
    gpu_hours,
)
from sarhpc.training.schedule import fitting_micro_batch, length

if TYPE_CHECKING:
    from sarhpc.training.config import TrainConfig
    from sarhpc.training.estimate.operations import FlopEstimate

EXAMPLE_TILES = 10_000
"""Tiles that costs are given for while their number is unknown: as many as in the paper."""


_OF_MEMORY = ("each GPU", "with ", "memory:")
"""How the lines about the memory of a GPU begin."""


@dataclass(frozen=True)
class TrainingCost:
    """How long a training is, and what it takes."""

    learned: int | None
    """Parameters that learn; None where the base model cannot be counted."""
    lines: tuple[str, ...]
    """What a dry run prints of it."""
    steps: int = 0
    """Steps of the training."""

    @property
    def memory(self) -> tuple[str, ...]:
        """Its lines about the memory of a GPU."""
        return tuple(line for line in self.lines if line.startswith(_OF_MEMORY))


def training_cost(
    config: RunConfig, plan: Plan | None, world: int, memory: float | None = None
) -> TrainingCost:
    """The cost of the training of `config` on `world` GPUs, for the samples that its plan names.

    Args:
        config: of the run.
        plan: of the training, if it can be made yet.
        world: ranks.
        memory: bytes of each rank's GPU, where they are known; only `train.fit` asks for it.

    Raises:
        ConfigError: the global batch does not divide among the ranks.
    """
    cfg = config.train
    micro = fitting_micro_batch(cfg.micro_batch, cfg.global_batch, world)
    config = dataclasses.replace(config, train=dataclasses.replace(cfg, micro_batch=micro))
    samples = EXAMPLE_TILES if plan is None else int(plan.shards[0].inputs["samples"])
    known, base = plan is not None, _base(config)
    if base.is_dir() and not _has_shapes(base):
        steps, line = _steps(config, samples, world, known=known)
        return TrainingCost(None, (line, f"memory: unknown, {base} is no diffusers folder"), steps)
    if cfg.fit is not None:
        from sarhpc.stages.training_fit import fitted

        found = fitted(config, base, world, memory)
        config, counted, chosen = found.config, found.counted, found.lines
    else:
        from sarhpc.training.estimate.operations import estimate_flops

        counted, chosen = estimate_flops(config.train, base, assumed_side(config)), ()
    steps, line = _steps(config, samples, world, known=known)
    lines = (line, *chosen, *_lines(config, counted, samples, world))
    return TrainingCost(counted.learned, lines, steps)


def _base(config: RunConfig) -> Path:
    """Folder of the base model; where it is not fetched yet, a path that its name ends."""
    try:
        return Path(model_folder(config.train.base_model))
    except ConfigError:
        return Path(config.train.base_model.removeprefix(FETCHED))


def _has_shapes(base: Path) -> bool:
    try:
        config = base / family_of(base).backbone / "config.json"
        return isinstance(json.loads(config.read_text()), dict)
    except (OSError, ValueError):
        return False


def _steps(config: RunConfig, samples: int, world: int, *, known: bool) -> tuple[int, str]:
    """Number of steps, and the line about them."""
    cfg = config.train
    count = f"{samples:,} tiles" if known else f"each {samples:,} tiles (their number is not known)"
    extent = length(cfg, samples, world)
    ends = "" if cfg.max_steps is None else f", at most {cfg.max_steps:,} steps"
    return extent.steps, (
        f"{extent.steps:,} steps for {count}: {cfg.epochs} epochs, {cfg.global_batch} a step = "
        f"{cfg.micro_batch} x {world} ranks x {extent.accumulation}{ends}"
    )


def _lines(config: RunConfig, counted: FlopEstimate, samples: int, world: int) -> Iterator[str]:
    from sarhpc.stages.training_fit import counts_of

    cfg, side, counts = config.train, assumed_side(config), counts_of(config, counted)
    yield (
        f"trainable parameters: {counted.learned / 1e6:,.1f} M of "
        f"{counted.parameters / 1e6:,.1f} M (counted: {counted.origin})"
    )
    yield from _memory(cfg, counts, side, world)
    yield f"one checkpoint: {checkpoint_bytes(cfg, counted.learned) / 1e9:.2f} GB"
    yield from _hours(config, counted, samples, world)


def _memory(cfg: TrainConfig, counts: Counts, side: int, world: int) -> Iterator[str]:
    """Memory of each GPU, and which cards have it."""
    held = footprint(cfg, counts, world)
    parts = ("weights", "gradients", "optimizer", "average", "buffers", "activations")
    shares = ", ".join(f"{part} {_size(getattr(held, part))}" for part in parts)
    ways = " with checkpointing" if cfg.gradient_checkpointing else ""
    yield (
        f"each GPU, ZeRO-{cfg.zero_stage} {cfg.precision}, {cfg.micro_batch} x "
        f"{side} px{ways}: {held.total / GIB:.2f} GiB = {shares}"
    )
    if held.host or held.disk:
        disk = f" and {_size(held.disk)} GiB on its disk" if held.disk else ""
        yield f"each rank offloads {_size(held.host)} GiB to the memory of its node{disk}"
    yield (
        f"with {FRAGMENTATION:.0%} fragmentation and {RESERVED_BYTES / GIB:.1f} GiB for libraries "
        f"(estimates): {_verdicts(held.needed())}"
    )


def memory_advice(config: RunConfig, cfg: TrainConfig, world: int) -> str:
    """What to lower where a training does not fit on its GPUs, and the estimate of its memory.

    Args:
        config: of the run.
        cfg: its training, with the micro-batch in use and the folder of the base model.
        world: ranks.
    """
    ways = ["train.fit left out"] if cfg.fit is not None else []
    ways += ["more GPUs (--profile)"] if cfg.zero_stage else []
    ways += [f"train.micro_batch below {cfg.micro_batch}"] if cfg.micro_batch > 1 else []
    ways += [] if cfg.gradient_checkpointing else ["train.gradient_checkpointing=true"]
    ways += ["train.zero_stage=2 on several GPUs"] if cfg.zero_stage < 2 else []
    ways += [] if cfg.offload else ["train.offload.optimizer=cpu"]
    ways += [] if config.encode is not None else ["the stage encode"]
    try:
        # In the layout in use: nothing is chosen again.
        used = dataclasses.replace(config, train=dataclasses.replace(cfg, fit=None))
        estimate = "; ".join(training_cost(used, None, world).memory)
    except (HpcError, OSError, ValueError) as error:
        estimate = f"unknown ({error})"
    return f"start a new run with {', or '.join(ways)}. Estimate: {estimate}"


def _size(size: float) -> str:
    return f"{size / GIB:.2f}"


def _verdicts(needed: float) -> str:
    said = [
        f"{card.name} {'yes' if needed <= card.memory_bytes else 'NO'}"
        f" ({needed / card.memory_bytes:.0%})"
        for card in CARDS
    ]
    return f"fits on {', '.join(said)}"


def _hours(config: RunConfig, counted: FlopEstimate, samples: int, world: int) -> Iterator[str]:
    cfg = config.train
    images = _images(config, samples)
    encoded = images
    if config.encode is not None:
        encoded = samples * (2 if cfg.azimuth_flip else 1)
    elif cfg.cache_latents:
        # Every rank keeps what it met itself.
        encoded = min(images, samples * min(cfg.epochs, world))
    flops = images * counted.done_flops + encoded * counted.encode_flops
    yield (
        f"{counted.image_flops / 1e12:.3g} TFLOP an image forward and backward, "
        f"{counted.encode_flops / 1e12:.3g} to encode it; together {flops / 1e15:,.3g} PFLOP"
    )
    hours: dict[str, str] = {}
    for card in CARDS:
        share = f"{card.utilisation:.0%} of peak, {card.source}"
        kind = card.name.partition("-")[0]
        hours[kind] = f"{gpu_hours(card, cfg, flops):.3g} GPU-hours on {kind} ({share})"
    yield f"about {'; '.join(hours.values())}"


def _images(config: RunConfig, samples: int) -> int:
    """Images that training goes through forward and backward, regularisation images too."""
    cfg = config.train
    tiles = cfg.epochs * samples
    if cfg.max_steps is not None:
        tiles = min(tiles, cfg.max_steps * cfg.global_batch)
    return tiles * (1 if cfg.prior is None else 2)
