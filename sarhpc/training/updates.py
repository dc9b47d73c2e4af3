"""What ends every optimiser step, whatever learns: agreement on the loss, and the update."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sarhpc.training.ranks import Ranks


def agree(losses: Tensor, flag: bool, ranks: Ranks) -> tuple[list[float], bool]:
    """Mean losses over all ranks, not finite if one rank's is not; whether rank 0's flag is up.

    One all-reduce for both: it is the step's only synchronisation besides DeepSpeed's own.
    """
    raised = torch.tensor([float(flag and ranks.rank == 0)], dtype=torch.float64)
    both = torch.cat([losses.double(), raised.to(losses.device)])
    torch.distributed.all_reduce(both)
    *totals, raised_by = both.tolist()
    return [total / ranks.world for total in totals], raised_by > 0


def update_sharded(engine: Any) -> float:
    """Clip and apply the gradients of ZeRO stage 1 to 3; their norm before clipping.

    Where that is not finite, nothing is applied: not to weights, not to moments.
    """
    engine.step()
    whole = float(engine.get_global_grad_norm())
    # DeepSpeed says -1 of a norm that is not finite.
    return whole if whole >= 0 else math.nan
