"""Micro-batch, gradient checkpointing and ZeRO stage, chosen by the memory of the GPUs.

The rule is fixed and knows no speed: nothing is recomputed that memory can hold, passes are as
large as they can be, weights stay whole on each GPU, and no more is sharded than that needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sarhpc.training.config import TrainConfig
from sarhpc.training.estimate.footprint import CARDS, GIB, Counts, footprint

ImageCounts = Callable[[bool], Counts]
"""Counts of a training in micro-batches of one image, with gradient checkpointing or without."""


@dataclass(frozen=True)
class Fit:
    """How a training is laid out on its GPUs."""

    micro_batch: int
    gradient_checkpointing: bool
    zero_stage: int
    needed: float = 0.0
    """Estimated bytes that each GPU must have."""

    def of(self, cfg: TrainConfig) -> TrainConfig:
        """`cfg` laid out so."""
        return replace(
            cfg,
            micro_batch=self.micro_batch,
            gradient_checkpointing=self.gradient_checkpointing,
            zero_stage=self.zero_stage,
        )

    def __str__(self) -> str:
        checkpointing = "with" if self.gradient_checkpointing else "without"
        return (
            f"micro-batch {self.micro_batch}, {checkpointing} gradient checkpointing, "
            f"ZeRO-{self.zero_stage}"
        )


def is_deterministic(cfg: TrainConfig, *, on_gpu: bool) -> bool:
    """Whether torch is asked for deterministic kernels; `fit: auto` gives them up on GPUs."""
    return cfg.deterministic and not (on_gpu and cfg.fit == "auto")


def choose(cfg: TrainConfig, world: int, memory: float, counts: ImageCounts) -> Fit | None:
    """The first layout that `memory` bytes of each of `world` GPUs hold; None if none does."""
    return next((fit for fit in _layouts(cfg, world, counts) if fit.needed <= memory), None)


def what_would_fit(cfg: TrainConfig, world: int, memory: float, counts: ImageCounts) -> str:
    """Why nothing fits on `world` GPUs of `memory` bytes, and what would."""
    least = _least(cfg, world, counts)
    ways = [f"{card.name}" for card in CARDS if least.needed <= card.memory_bytes]
    ways = [f"GPUs such as {' or '.join(ways)}"] if ways else []
    more = (n for n in range(world + 1, cfg.global_batch + 1) if cfg.global_batch % n == 0)
    ranks = next((n for n in more if _least(cfg, n, counts).needed <= memory), None)
    ways += [f"{ranks} ranks"] if ranks else []
    if cfg.offload is None:
        from sarhpc.training.config import OffloadConfig

        for offload in (OffloadConfig(), OffloadConfig(parameters="cpu")):
            lighter = _least(replace(cfg, offload=offload), world, counts)
            if lighter.needed <= memory:
                with_weights = "" if offload.parameters == "none" else " with parameters=cpu"
                ways.append(f"train.offload={{}}{with_weights} ({lighter.needed / GIB:.1f} GiB)")
                break
    return (
        f"train.fit={cfg.fit}: no layout fits on {world} ranks of {memory / GIB:.1f} GiB; the "
        f"smallest ({least}) needs {least.needed / GIB:.1f} GiB on each (estimate). "
        f"What would fit: {', or '.join(ways) if ways else 'a smaller model, or an adapter'}"
    )


def _least(cfg: TrainConfig, world: int, counts: ImageCounts) -> Fit:
    return min(_layouts(cfg, world, counts), key=lambda fit: fit.needed)


def _layouts(cfg: TrainConfig, world: int, counts: ImageCounts) -> Iterator[Fit]:
    """Every layout that `cfg` allows, in the order of preference."""
    share = cfg.global_batch // world
    sizes = [size for size in range(share, 0, -1) if share % size == 0]
    for stages in _stages(cfg, world):
        for checkpointing in (False, True):
            one = counts(checkpointing)
            for size in sizes:
                for stage in stages:
                    fit = Fit(size, checkpointing, stage)
                    held = footprint(fit.of(cfg), _of_images(one, size), world)
                    yield replace(fit, needed=held.needed())


def _stages(cfg: TrainConfig, world: int) -> list[tuple[int, ...]]:
    """ZeRO stages that keep weights whole, then those that shard them too."""
    whole: tuple[int, ...] = (1, 2)
    if world == 1 and cfg.precision == "fp32" and cfg.offload is None:
        whole = (0, 1)
    sharded_only = cfg.offload is not None and cfg.offload.parameters != "none"
    found: list[tuple[int, ...]] = [] if sharded_only else [whole]
    return found if cfg.compile else [*found, (3,)]


def _of_images(counts: Counts, images: int) -> Counts:
    """Counts of a micro-batch of so many images, from those of one."""
    return replace(
        counts,
        activation_bytes=counts.activation_bytes * images,
        encode_bytes=counts.encode_bytes * images,
    )
