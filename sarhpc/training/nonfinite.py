"""Steps whose loss or gradient is not finite: told with their batch, then skipped or the end.

A skipped step takes its number and its samples, so that what follows it is the same on any number
of ranks and after any resume; its update alone is missing. ZeRO 1 to 3 leave an update out by
themselves where the gradient norm over all ranks is not finite, and forget the gradients; at stage
0 the stepper drops them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from hpc.errors import HpcError, NumericalError
from hpc.publish import publish_json
from sarhpc.training.config import TrainConfig
from sarhpc.training.context import Surroundings
from sarhpc.training.ranks import Ranks

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Skipped:
    """How many steps went by without their update."""

    steps: int = 0
    """In all attempts."""
    in_a_row: int = 0
    """Since the last update."""

    def with_another(self) -> Skipped:
        """The count after one more."""
        return Skipped(self.steps + 1, self.in_a_row + 1)

    def with_update(self) -> Skipped:
        """The count after a step that was none."""
        return Skipped(self.steps) if self.in_a_row else self


class Keyed(Protocol):
    """What a rank had in hand."""

    @property
    def all_keys(self) -> list[str]:
        """Names of its samples."""


@dataclass(frozen=True)
class Trouble:
    """A step that cannot be learnt from, as this rank sees it."""

    what: str
    """What is not finite; the same on every rank."""
    step: int
    epoch: int
    share: Keyed
    loss: float
    """Of this rank's share."""
    saved: int
    """Step of the newest checkpoint."""


def name_trouble(loss: float, gradient: float) -> str | None:
    """What is not finite of a step's loss and gradient norm over all ranks; None if both are."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    return None if math.isfinite(gradient) else f"the gradient norm is {gradient}"


def spoilt(loss: Tensor) -> Tensor:
    """The loss, to the bit; where it is not finite, one whose gradients are not finite either.

    An error that overflows can leave finite gradients behind, and an update with them.
    """
    return loss * (1 + 0 * loss.detach())


def skip(
    cfg: TrainConfig, trouble: Trouble, before: Skipped, ranks: Ranks, around: Surroundings
) -> Skipped:
    """Tell of the step, and count it as skipped if `cfg` allows that. Collective.

    Raises:
        NumericalError: it does not, or too many were skipped before.
    """
    now = before.with_another()
    limit = _limit(cfg, now)
    path = tell(trouble, ranks, around, then="skipped" if limit is None else "stopped")
    if limit is not None:
        raise NumericalError(
            f"{trouble.what} at step {trouble.step}{limit}; the batch is in {path}. The "
            f"checkpoint of step {trouble.saved} is whole: look at those samples, then resume "
            "with train.on_nonfinite=skip or other limits in the run's config.yaml, or start a new "
            "run with a lower rate or fp32"
        )
    if ranks.rank == 0:
        _log.warning(
            "step=%d skipped=%d what=%r batch=%s", trouble.step, now.steps, trouble.what, path
        )
    return now


def _limit(cfg: TrainConfig, now: Skipped) -> str | None:
    """Why a step is not skipped, for a sentence; None if it is."""
    if cfg.on_nonfinite != "skip":
        return ""
    if now.in_a_row > cfg.skip_in_a_row:
        return f", after {cfg.skip_in_a_row} in a row that were skipped (train.skip_in_a_row)"
    if now.steps > cfg.skip_in_all:
        return f", after {cfg.skip_in_all} that were skipped (train.skip_in_all)"
    return None


def tell(trouble: Trouble, ranks: Ranks, around: Surroundings, *, then: str) -> Path:
    """The report on what every rank had in hand, published. Collective."""
    path = around.folder / f"trouble_step_{trouble.step:08d}.json"
    loss = trouble.loss if math.isfinite(trouble.loss) else str(trouble.loss)  # JSON knows no NaN
    told = around.communicator.gather({"loss": loss, "keys": trouble.share.all_keys})
    if ranks.rank == 0:
        facts: dict[str, Any] = {
            "what": trouble.what,
            "step": trouble.step,
            "epoch": trouble.epoch,
            "then": then,
            "ranks": told,
        }
        try:
            publish_json(path, facts)
        except (HpcError, OSError):
            # The other ranks go on with what was agreed: this one may not leave them.
            _log.exception("no room for the report %s: %s", path, facts)
    return path
