"""How `train.fit` lays a training out on its GPUs: for a dry run, and at the first start."""

from __future__ import annotations

import dataclasses
import functools
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from hpc.memory import node_memory_bytes
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.sizes import assumed_side
from sarhpc.training.estimate.fit import Fit, choose, what_would_fit
from sarhpc.training.estimate.footprint import CARDS, GIB, Counts

if TYPE_CHECKING:
    from hpc.job.agreement import RankGroup
    from sarhpc.training.estimate.operations import FlopEstimate

USABLE = 0.985
"""Share of a GPU's nominal memory that torch reports of it (39.4 GiB of 40, 139 of 141)."""


NODE_SHARE = 0.8
"""Share of a node's memory that trainings on its CPUs may take."""


def rank_memory(ranks: RankGroup) -> float:
    """Bytes that the training may take on each rank: the least of all. Collective.

    That of its GPU, or on CPUs its share of the node's memory.
    """
    import torch

    if ranks.device.type == "cuda":
        own = float(torch.cuda.get_device_properties(ranks.device).total_memory)
    else:
        host = socket.gethostname()
        own = NODE_SHARE * node_memory_bytes() / ranks.gather(host).count(host)
    return min(ranks.gather(own))


def local_memory(ranks: int) -> float:
    """The same of `ranks` ranks on this machine, before they start."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return NODE_SHARE * node_memory_bytes() / ranks


def usable_memory(gpu_memory_gb: float) -> float:
    """Bytes that torch reports of a GPU of so many GB by its name."""
    return gpu_memory_gb * USABLE * GIB


@dataclass(frozen=True)
class FittedTraining:
    """A configuration in the layout chosen for it, and what is said of the choice."""

    config: RunConfig
    counted: FlopEstimate
    """Of the micro-batch chosen."""
    lines: tuple[str, ...]


class LayoutCounts:
    """What one image of a training takes, with checkpointing and without; each counted once."""

    def __init__(self, config: RunConfig, base: Path) -> None:
        """Count the training of `config`, whose base model's folder is `base`."""
        self._config, self._base = config, base
        self.flops: Callable[[bool], FlopEstimate] = functools.cache(self._count)

    def _count(self, checkpointing: bool) -> FlopEstimate:
        from sarhpc.training.estimate.operations import estimate_flops

        cfg = dataclasses.replace(
            self._config.train, micro_batch=1, gradient_checkpointing=checkpointing
        )
        return estimate_flops(cfg, self._base, assumed_side(self._config))

    def counts(self, checkpointing: bool) -> Counts:
        """Numbers that the memory follows from, in micro-batches of one image."""
        return counts_of(self._config, self.flops(checkpointing))

    def of(self, fit: Fit) -> FlopEstimate:
        """The count of a micro-batch in a layout."""
        one = self.flops(fit.gradient_checkpointing)
        return dataclasses.replace(
            one,
            activation_bytes=one.activation_bytes * fit.micro_batch,
            encode_bytes=one.encode_bytes * fit.micro_batch,
        )


def counts_of(config: RunConfig, counted: FlopEstimate) -> Counts:
    """The numbers that the memory of a training follows from."""
    return Counts(
        counted.parameters,
        counted.learned,
        counted.autoencoder,
        counted.activation_bytes,
        # Latents from the stage `encode` are only read.
        counted.encode_bytes if config.encode is None else 0,
    )


def layout(config: RunConfig, base: Path, world: int, memory: float) -> Fit:
    """The layout for `world` ranks with `memory` bytes each.

    Raises:
        ConfigError: nothing fits; says what would.
    """
    layouts = LayoutCounts(config, base)
    found = choose(config.train, world, memory, layouts.counts)
    if found is None:
        raise ConfigError(what_would_fit(config.train, world, memory, layouts.counts))
    return found


def fitted(config: RunConfig, base: Path, world: int, memory: float | None) -> FittedTraining:
    """The training of `config` in its layout; where the memory is unknown, in that of a common GPU.

    Args:
        config: with `train.fit`.
        base: folder of the base model.
        world: ranks.
        memory: bytes of each rank; None where a profile does not say it.
    """
    layouts = LayoutCounts(config, base)
    counts = layouts.counts
    lines: list[str] = []
    if memory is None:
        found, lines = _by_card(config, world, layouts)
    else:
        found = choose(config.train, world, memory, counts)
        lines = [_choice(config, found, memory)] if found else []
    if found is None:
        limit = CARDS[-1].memory_bytes if memory is None else memory
        # What is shown below is the smallest one.
        lines.append(what_would_fit(config.train, world, limit, counts))
        found = choose(config.train, world, float("inf"), counts)
        assert found is not None
    lines += list(_kernels(config))
    chosen = dataclasses.replace(config, train=found.of(config.train))
    return FittedTraining(chosen, layouts.of(found), tuple(lines))


def _by_card(config: RunConfig, world: int, layouts: LayoutCounts) -> tuple[Fit | None, list[str]]:
    """The layout on the first card that has one, and a line for each card."""
    lines, first = ["train.fit: the profile does not say gpu_memory_gb; by kind of GPU:"], None
    for card in CARDS:
        found = choose(config.train, world, card.memory_bytes, layouts.counts)
        first = first or found
        lines.append(f"  {card.name}: {found or 'nothing fits'}")
    return first, lines


def _choice(config: RunConfig, found: Fit, memory: float) -> str:
    return (
        f"train.fit={config.train.fit}, {memory / GIB:.1f} GiB a rank: {found} "
        "(kept from the first start on)"
    )


def _kernels(config: RunConfig) -> Iterator[str]:
    if config.train.fit == "auto" and config.train.deterministic:
        yield (
            "on GPUs train.fit=auto leaves deterministic kernels off: a resumed training does not "
            "repeat the bits; train.fit=exact keeps them"
        )
