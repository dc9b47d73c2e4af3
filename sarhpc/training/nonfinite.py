"""Steps whose loss or gradient is not finite: reported with their batch, then skipped or fatal.

A skipped step takes its number and its samples, so that what follows it is the same on any number
of ranks and after any resume; its update alone is missing. ZeRO 1 to 3 leave an update out by
themselves where the gradient norm over all ranks is not finite, and forget the gradients; at stage
0 the trainer drops them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hpc.errors import HpcError, NumericalError
from hpc.job.agreement import RankGroup
from hpc.publish import publish_json
from sarhpc.training.config import LoopConfig
from sarhpc.training.task import RankBatch, TrainTask

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


@dataclass(frozen=True)
class NonFiniteStep:
    """A step without a usable update, as this rank sees it."""

    what: str
    """What is not finite; the same on every rank."""
    step: int
    epoch: int
    batch: RankBatch
    loss: float
    """Of this rank's part of the batch."""
    saved: int
    """Step of the newest checkpoint."""


def describe_nonfinite(loss: float, gradient: float) -> str | None:
    """What is not finite of a step's loss and gradient norm over all ranks; None if both are."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    return None if math.isfinite(gradient) else f"the gradient norm is {gradient}"


def poison_if_nonfinite(loss: Tensor) -> Tensor:
    """The loss unchanged; where it is not finite, one whose gradients are not finite either.

    An error that overflows can leave finite gradients behind, and an update with them.
    """
    return loss * (1 + 0 * loss.detach())


def skip_or_stop(
    cfg: LoopConfig,
    found: NonFiniteStep,
    before: Skipped,
    ranks: RankGroup,
    folder: Path,
    task: TrainTask[Any],
) -> Skipped:
    """Report the step, and count it as skipped if `cfg` allows that. Collective.

    Args:
        cfg: the limits.
        found: the step.
        before: steps skipped so far.
        ranks: that took the step.
        folder: receives the report.
        task: names the settings and the remedy in the message.

    Raises:
        NumericalError: it does not, or too many were skipped before.
    """
    now = before.with_another()
    limit = _limit(cfg, now, task.name)
    path = write_report(found, ranks, folder, then="skipped" if limit is None else "stopped")
    if limit is not None:
        raise NumericalError(
            f"{found.what} at step {found.step}{limit}; the batch is in {path}. The checkpoint of "
            f"step {found.saved} is intact: look at those samples, then "
            f"{task.remedy}"
        )
    if ranks.rank == 0:
        _log.warning("step=%d skipped=%d what=%r batch=%s", found.step, now.steps, found.what, path)
    return now


def _limit(cfg: LoopConfig, now: Skipped, name: str) -> str | None:
    """Why a step is not skipped, for a sentence; None if it is."""
    if cfg.on_nonfinite != "skip":
        return ""
    if now.in_a_row > cfg.skip_in_a_row:
        return f", after {cfg.skip_in_a_row} in a row that were skipped ({name}.skip_in_a_row)"
    if now.steps > cfg.skip_in_all:
        return f", after {cfg.skip_in_all} that were skipped ({name}.skip_in_all)"
    return None


def write_report(found: NonFiniteStep, ranks: RankGroup, folder: Path, *, then: str) -> Path:
    """Publish the loss and the samples of every rank in the step; the report's path. Collective."""
    path = folder / f"trouble_step_{found.step:08d}.json"
    loss = found.loss if math.isfinite(found.loss) else str(found.loss)  # JSON knows no NaN
    of_ranks = ranks.gather({"loss": loss, "keys": found.batch.all_keys})
    if ranks.rank == 0:
        report: dict[str, Any] = {
            "what": found.what,
            "step": found.step,
            "epoch": found.epoch,
            "then": then,
            "ranks": of_ranks,
        }
        try:
            publish_json(path, report)
        except (HpcError, OSError):
            # The other ranks go on with what was agreed: this one may not leave them.
            _log.exception("the report %s could not be written: %s", path, report)
    return path
