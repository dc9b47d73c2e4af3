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
from sarhpc.training.config import LoopConfig
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
        if not math.isfinite(norm):
            self.engine.zero_grad()
            self.engine.micro_steps += 1  # its step would count the last micro-batch
            return float(norm)
        if self._clips and self._cfg.grad_clip:
            clip_grads_with_norm_(parameters, self._cfg.grad_clip, norm)
        self.engine.step()
        return float(norm)


def reduce_losses(
    own: Mapping[str, Tensor], flag: bool, ranks: RankGroup
) -> tuple[dict[str, float], bool]:
    """Mean losses over all ranks, not finite if one rank's is not; whether rank 0's flag is up.

    One all-reduce for both: it is the step's only synchronisation besides DeepSpeed's own.
    """
    raised = torch.tensor(float(flag and ranks.rank == 0), dtype=torch.float64)
    values = [*own.values(), raised.to(ranks.device)]
    both = torch.stack([value.double() for value in values])
    torch.distributed.all_reduce(both)
    *totals, raised_by = both.tolist()
    means = [total / ranks.world for total in totals]
    return dict(zip(own, means, strict=True)), raised_by > 0
