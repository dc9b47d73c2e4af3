"""Averaged weights: an fp32 average of the shard each rank owns, no gather, no extra traffic."""

from __future__ import annotations

import torch
from torch import Tensor

from sarhpc.training.checkpoints.partition import Partition


class Ema:
    """Exponential moving average of this rank's fp32 partition, for ZeRO stages 0 to 3.

    The average of bf16 weights would not move at a decay of 0.9999; the partition is fp32 in every
    stage and precision, so it does.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.tensors: list[Tensor] = [
            tensor.detach().clone().float() for tensor in partition.tensors
        ]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average by `1 - decay` towards the weights."""
        for average, tensor in zip(self.tensors, self.partition.tensors, strict=True):
            average.lerp_(tensor.detach().float(), 1 - decay)

    @torch.no_grad()
    def load(self, tensors: list[Tensor]) -> None:
        """Take over an average saved by this rank."""
        for average, saved in zip(self.tensors, tensors, strict=True):
            average.copy_(saved)
