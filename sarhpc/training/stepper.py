"""One optimiser step of any task: rates, passes, agreement of the ranks, update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from hpc.job.agreement import RankGroup
from sarhpc.shards.transfer import to_device
from sarhpc.training.config import LoopConfig
from sarhpc.training.context import MOST_URGENT
from sarhpc.training.engine import trainable_weights, wrap_in_engine
from sarhpc.training.metrics.gradient_norms import GroupNorms
from sarhpc.training.metrics.log import StepClock
from sarhpc.training.nonfinite import poison_if_nonfinite
from sarhpc.training.schedule import accumulation
from sarhpc.training.task import B, TrainTask


class Stepper:
    """Takes optimiser steps with a DeepSpeed engine around the module of a task."""

    def __init__(self, cfg: LoopConfig, task: TrainTask[B], ranks: RankGroup) -> None:
        """Start the engine. Collective.

        Raises:
            ConfigError: the global batch does not divide among ranks and micro-batches.
        """
        name = f"{task.name}.batch"
        self._cfg = cfg
        self._passes = accumulation(cfg.global_batch, cfg.micro_batch, ranks.world, name)
        # Before the optimiser is made: the module may be rounded for it.
        full = trainable_weights(task.module)
        optimizer = task.optimizer()
        self._groups: Sequence[Mapping[str, Any]] = [
            {k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups
        ]
        self._clips = cfg.torch_clips and cfg.zero_stage == 0
        options = replace(cfg, grad_clip=0.0) if self._clips else cfg
        self.engine, self.partition = wrap_in_engine(
            options, task.module, optimizer, full, ranks, self._passes
        )
        names = [group["name"] for group in self._groups]
        self._norms = GroupNorms(self.engine, names, replicated=self.partition.replicated)
        self.clock = StepClock(ranks.device)

    def set_rates(self, scale: float) -> dict[str, float]:
        """Write this step's rate into each group, by name, and return the rates.

        Every option is written, not the rate alone: a loaded checkpoint brings its own, and
        DeepSpeed's stage 3 can bring those of another group.
        """
        rates = {group["name"]: group["lr"] * scale for group in self._groups}
        for group, options in zip(self.engine.optimizer.param_groups, self._groups, strict=True):
            group.update({**options, "lr": rates[options["name"]]})
        return rates

    def forward_backward(self, task: TrainTask[B], batch: B) -> dict[str, Tensor]:
        """Mean losses of this rank by name, on the device; gradients are in place afterwards."""
        totals: dict[str, Tensor] = {}
        for number, (loss, losses) in enumerate(task.losses(self.engine, batch, self.clock)):
            with self.clock.part("backward"):
                skips = self._cfg.on_nonfinite == "skip"
                self.engine.backward(poison_if_nonfinite(loss) if skips else loss)
            for name, value in losses.items():
                mean = value.detach() / self._passes
                totals[name] = totals[name] + mean if name in totals else mean
            if number + 1 < self._passes:
                self.engine.step()  # not a boundary: DeepSpeed only counts it
        return totals

    def update(self, *, by_group: bool) -> tuple[float, dict[str, float]]:
        """Clip and apply the gradients; their norm before clipping, on demand of each group too.

        Where that is not finite, nothing is applied: not to weights, not to moments; then no
        group's is reported. Collective.
        """
        self._norms.watches = by_group
        with self.clock.part("optimizer"):
            replicated = self.partition.replicated
            whole = self._update_replicated() if replicated else self._update_sharded()
            measured = by_group and math.isfinite(whole)
            return whole, self._norms.before_clipping(whole) if measured else {}

    def _update_sharded(self) -> float:
        self.engine.step()
        whole = float(self.engine.get_global_grad_norm())
        # DeepSpeed returns -1 for a norm that is not finite.
        return whole if whole >= 0 else math.nan

    def _update_replicated(self) -> float:
        """The same at stage 0, where DeepSpeed reports no norm and applies any gradient."""
        parameters = [p for p in self.engine.module.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        whole = float(norm)  # read once: a GPU is waited for
        if not math.isfinite(whole):
            self.engine.zero_grad()
            self.engine.micro_steps += 1  # its step would count the last micro-batch
            return whole
        if self._clips and self._cfg.grad_clip:
            clip_grads_with_norm_(parameters, self._cfg.grad_clip, norm)
        self.engine.step()
        return whole


class ReducedLosses:
    """Mean losses over all ranks on their way to the host.

    The update is launched meanwhile: where they were read first, a GPU would idle between the two.
    """

    def __init__(self, names: Sequence[str], sums: Tensor, world: int) -> None:
        """Begin to copy `sums`: of each loss, of the flag, and of what asks to stop."""
        self._names, self._world = names, world
        self._ready: torch.cuda.Event | None = None
        self._sums = sums
        if sums.device.type == "cuda":
            self._sums = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=True)
            self._sums.copy_(sums, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()

    def read(self) -> tuple[dict[str, float], bool, int]:
        """The means, not finite if one rank's is not; rank 0's flag; the largest urgency."""
        if self._ready is not None:
            self._ready.synchronize()
        numbers = self._sums.tolist()
        count = len(self._names)
        means = [total / self._world for total in numbers[:count]]
        urgency = max((n for n, asked in enumerate(numbers[count + 1 :], 1) if asked), default=0)
        return dict(zip(self._names, means, strict=True)), numbers[count] > 0, urgency


def reduce_losses(
    own: Mapping[str, Tensor], flag: bool, ranks: RankGroup, urgency: int = 0
) -> ReducedLosses:
    """Mean losses over all ranks, and what else they agree on; to be read after the update.

    One all-reduce for all: it is the step's only one besides DeepSpeed's own.

    Args:
        own: mean losses of this rank by name.
        flag: of rank 0; the others' do not count.
        ranks: this process among the others.
        urgency: with which this rank asks to stop.
    """
    asked = [
        float(flag and ranks.rank == 0),
        *(float(n + 1 == urgency) for n in range(MOST_URGENT)),
    ]
    [raised] = to_device([torch.tensor(asked, dtype=torch.float64)], ranks.device)
    both = torch.cat([torch.stack([value.double() for value in own.values()]), raised])
    torch.distributed.all_reduce(both)
    return ReducedLosses(list(own), both, ranks.world)
