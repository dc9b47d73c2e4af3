"""The optimiser of a caption fine-tuning and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch


def adamw(model: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) with decay on matrices only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"name": "matrices", "params": matrices, "weight_decay": weight_decay},
        {"name": "others", "params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def warmup_cosine(warmup_steps: int, steps: int) -> Callable[[int], float]:
    """Share of the peak rate by step: a linear rise, then half a cosine to zero at `steps`."""

    def share(step: int) -> float:
        """Share of the peak rate at `step`."""
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return share
