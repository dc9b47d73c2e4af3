"""The gradient norm of each group, measured where AdamW applies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from hpc.errors import NumericalError
from sarhpc.training.checkpoints.partition import reduction_device


class GroupNorms:
    """Watches the optimiser of a DeepSpeed engine, whatever its stage, while it is asked to.

    Every stage passes its (clipped) fp32 gradients to the optimiser it wraps: whole at stage 0,
    else this rank's pieces, group by group or in smaller portions. So nothing is gathered and no
    private name of DeepSpeed's is read.
    """

    def __init__(self, engine: Any, names: Sequence[str], *, replicated: bool) -> None:
        """Watch `engine`.

        Args:
            engine: whose optimiser has groups of these `names`.
            names: in the optimiser's order.
            replicated: every rank owns everything (stage 0).
        """
        self._names = names
        self._replicated = replicated
        self._squares: dict[str, list[Tensor]] = {}
        self.watches = False
        """Whether the next update is measured: one more reading of the gradients."""
        inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
        inner.register_step_pre_hook(self._look)

    def _look(self, optimizer: torch.optim.Optimizer, _words: object, _named: object) -> None:
        for group in optimizer.param_groups if self.watches else ():
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if gradients:
                square = get_total_norm(gradients).double().square()
                self._squares.setdefault(group["name"], []).append(square)

    def before_clipping(self, whole: float) -> dict[str, float]:
        """Norm of each group in the update that was watched, `whole` being that of all together.

        Collective. Clipping scales all groups alike, so `whole` undoes it.
        """
        seen, self._squares = self._squares, {}
        squares = torch.tensor(
            [sum(map(float, seen.get(name, ()))) for name in self._names], dtype=torch.float64
        )
        if not self._replicated:
            total = squares.to(reduction_device([squares]))
            torch.distributed.all_reduce(total)
            squares = total.cpu()
        together = max(float(squares.sum()) ** 0.5, torch.finfo(torch.float64).tiny)
        norms = (squares.sqrt() * (whole / together)).tolist()
        return dict(zip(self._names, norms, strict=True))


def require_gradients(norms: dict[str, float]) -> None:
    """Stop a run in which one group learns nothing.

    Raises:
        NumericalError: a group's gradient was zero at the first step.
    """
    silent = [name for name, norm in norms.items() if norm == 0.0]
    if silent:
        raise NumericalError(
            f"no gradient reached {' and '.join(silent)} in the first step; "
            "check that its parameters require gradients, that captions are not all empty, and "
            "that they hold the token if one is learnt"
        )
