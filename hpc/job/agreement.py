"""The ranks of one job, and how they come to one decision.

Every method is collective: all ranks call the same methods in the same order, each gets the same
answer, and none returns before all have asked. torch is imported inside the methods, so that the
rest of `hpc` and light modules of the science can name ranks without it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from hpc.errors import ConfigError, HpcError, TransientError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_log = logging.getLogger(__name__)


class RankGroup(Protocol):
    """This process among the ranks of its job, and the collectives they share."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def world(self) -> int:
        """How many processes there are."""

    @property
    def device(self) -> torch.device:
        """Device this process computes on."""

    def barrier(self) -> None:
        """Return when every rank has come here."""

    def broadcast(self, value: T) -> T:
        """Rank 0's `value`, on every rank."""

    def maximum(self, value: int) -> int:
        """The largest `value` of all ranks."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on at least one rank."""

    def gather(self, value: T) -> list[T]:
        """Every rank's `value` in rank order, on every rank."""


@dataclass(frozen=True)
class SingleProcess:
    """A group of one process, which exchanges nothing."""

    rank: int = 0
    world: int = 1

    @property
    def device(self) -> torch.device:
        """The CPU."""
        import torch

        return torch.device("cpu")

    def barrier(self) -> None:
        """Return at once."""

    def broadcast(self, value: T) -> T:
        """Return `value`."""
        return value

    def maximum(self, value: int) -> int:
        """Return `value`."""
        return value

    def any(self, flag: bool) -> bool:
        """Return `flag`."""
        return flag

    def gather(self, value: T) -> list[T]:
        """Return `[value]`."""
        return [value]


class TorchRankGroup:
    """The ranks of the torch.distributed process group that is open in this process.

    Works with gloo and nccl. A rank that has died is reported as a TransientError by all others,
    within seconds under gloo, after the group's timeout under nccl.
    """

    def __init__(self) -> None:
        import torch
        import torch.distributed as distributed

        if not distributed.is_available() or not distributed.is_initialized():
            raise ConfigError(
                "no torch.distributed process group is open; "
                "call deepspeed.init_distributed (or init_process_group) first"
            )
        self.rank: int = distributed.get_rank()
        self.world: int = distributed.get_world_size()
        on_gpu = distributed.get_backend() == "nccl"
        self.device: torch.device = (
            torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        )

    def barrier(self) -> None:
        """Return when every rank has come here."""
        # dist.barrier() asks nccl for a device; a one-element all-reduce waits just as well.
        self.maximum(0)

    def broadcast(self, value: T) -> T:
        """Rank 0's `value`, on every rank; pickled, so for small objects of our own."""
        import torch.distributed as distributed

        box = [value]
        with self._in_touch("broadcast"):
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def maximum(self, value: int) -> int:
        """The largest `value` of all ranks: one all-reduce of eight bytes."""
        import torch
        import torch.distributed as distributed

        number = torch.tensor([value], dtype=torch.int64, device=self.device)
        with self._in_touch("all-reduce"):
            distributed.all_reduce(number, op=distributed.ReduceOp.MAX)
            return int(number.item())

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on at least one rank."""
        return self.maximum(int(flag)) > 0

    def gather(self, value: T) -> list[T]:
        """Every rank's `value` in rank order; pickled, so for small objects of our own."""
        import torch.distributed as distributed

        values: list[T | None] = [None] * self.world
        with self._in_touch("gather"):
            distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all_gather_object has filled every place

    @contextlib.contextmanager
    def _in_touch(self, operation: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise TransientError(
                f"rank {self.rank} of {self.world} lost the connection to the other ranks in a "
                f"{operation}: {error}. Another process of the job has ended or hangs; "
                "see its log, then resume."
            ) from error


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """Result or failure of an action on one rank, in a form that can be gathered."""

    rank: int
    value: T | None = None
    failure: str | None = None
    """Message of what was raised; None if the action succeeded."""
    kind: type[HpcError] | None = None
    """Class of the exception if it is an HpcError."""


def try_together(ranks: RankGroup, action: Callable[[], T]) -> list[Outcome[T]]:
    """Run `action` on every rank; every rank gets the outcomes of all, in rank order.

    An exception stays on its rank as a log line with its traceback; what to raise is for the
    caller to decide, on all ranks alike.
    """
    return ranks.gather(_outcome(ranks.rank, action))


def on_rank_0(ranks: RankGroup, action: Callable[[], T]) -> Outcome[T]:
    """Run `action` on rank 0 alone; every rank gets its outcome."""
    mine: Outcome[T] = Outcome(0)
    return ranks.broadcast(_outcome(0, action) if ranks.rank == 0 else mine)


def describe_failures(outcomes: list[Outcome[T]]) -> str | None:
    """One line on the failures, the first three in full; None if there are none."""
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    if not failed:
        return None
    words = "; ".join(f"rank {outcome.rank}: {outcome.failure}" for outcome in failed[:3])
    return words if len(failed) <= 3 else f"{words}; and {len(failed) - 3} more ranks"


def _outcome(rank: int, action: Callable[[], T]) -> Outcome[T]:
    try:
        return Outcome(rank, action())
    except Exception as error:
        _log.warning("failed rank=%d error=%r", rank, error, exc_info=True)
        if isinstance(error, HpcError):
            return Outcome(rank, failure=str(error), kind=type(error))
        return Outcome(rank, failure=f"{type(error).__name__}: {error}")
