"""What the trainer asks of the thing that is trained.

Engine, checkpoints, order of events, stop, skipped steps, averaged weights and rows of metrics are
those of `sarhpc.training.trainer`. A task says what a step is: a module, its batches and their
loss. A class that inherits from `TrainTask` only writes what differs from the defaults.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from sarhpc.shards.loader import Cursor
from sarhpc.training.metrics.log import StepClock

Weights = Callable[[], Mapping[str, Tensor]]
"""Gathers full fp32 weights by name on the CPU of every rank: averaged ones where an average is
kept. Collective."""


class RankBatch(Protocol):
    """What one rank computes on in one step."""

    @property
    def all_keys(self) -> list[str]:
        """Names of its samples, for reports."""


B = TypeVar("B", bound=RankBatch)


class TrainTask(Protocol[B]):
    """A model and how it learns; the same on every rank except for the batches."""

    name: str
    """The branch of the configuration, for messages."""
    module: nn.Module
    """What learns: the parameters that require a gradient."""
    samples: int
    """Samples of an epoch."""
    remedy: str = "start a new run with a lower learning rate or in fp32"
    """What to do about a step that is not finite, for a message."""

    @abstractmethod
    def optimizer(self) -> Optimizer:
        """One of torch's, each group with a name and its peak rate; `module` is on its device."""
        ...

    @abstractmethod
    def feed(self, cursor: Cursor, step: int) -> Generator[tuple[Cursor, B]]:
        """Yield (cursor after the global batch, this rank's part of it) from `cursor` on.

        Args:
            cursor: place in the samples.
            step: steps done so far.
        """
        ...

    @abstractmethod
    def losses(
        self, engine: Any, batch: B, clock: StepClock
    ) -> Iterable[tuple[Tensor, Mapping[str, Tensor]]]:
        """Yield the scalar loss of each forward pass, and what is reported of it by name.

        The name `loss` comes first. Over all passes and ranks the losses average to that of the
        global batch.

        Args:
            engine: calls `module` in its precision.
            batch: of this rank; as many passes as micro-batches.
            clock: takes the time of the parts `encode` and `forward`.
        """
        ...

    def started(self, rank: int) -> None:
        """Called when the engine is started, before a checkpoint is loaded."""
        return

    def rate_scale(self, update: int) -> float:
        """Factor on the peak rate of each group at `update` (from 0)."""
        return 1.0

    def metrics(
        self, step: int, batch: B, rates: Mapping[str, float], seconds: float
    ) -> Mapping[str, Any]:
        """What a row of metrics.jsonl adds to that of the trainer; asked on rank 0 alone.

        Args:
            step: steps done.
            batch: of rank 0.
            rates: learning rate by group; empty if the step was skipped.
            seconds: that the step took.
        """
        return {f"lr_{name}": rate for name, rate in rates.items()}

    def opening_rows(self) -> Sequence[Mapping[str, Any]]:
        """Rows of metrics.jsonl before the first step."""
        return ()

    def is_validation_due(self, step: int) -> bool:
        """Whether `validate` is to be called after `step` steps."""
        return False

    def validate(self, step: int, weights: Weights) -> Iterator[Mapping[str, Any] | None]:
        """Yield rows of metrics on `weights`, and None wherever the ranks may stop. Collective."""
        return iter(())

    def needs_checkpoint(self, step: int) -> bool:
        """Whether the weights after `step` steps have to be kept, as what judged them may ask."""
        return False

    def facts(self) -> Mapping[str, Any]:
        """What else must be the same when a checkpoint is resumed."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """What a checkpoint holds of the task itself, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned when the checkpoint was saved."""
        return

    def finish(self, weights: Weights) -> None:
        """Called once after the last step, before the engine is destroyed. Collective."""
        return
