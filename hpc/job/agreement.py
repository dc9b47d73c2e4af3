"""The ranks of one job, and how they come to one decision.

Every method is collective: all ranks call the same methods in the same order, each gets the same
answer, and none returns before all have asked. Values travel as JSON, on one rank as on many: a
tuple arrives as a list, and nothing that a rank receives can run. torch is imported inside the
methods, so that the rest of `hpc` and light modules of the science can name ranks without it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from hpc.errors import ConfigError, HpcError, TransientError
from hpc.publish import Digest

if TYPE_CHECKING:
    import torch

    from hpc.cluster.process_group import RankSession

T = TypeVar("T")

_BACKENDS = ("gloo", "nccl")
_KIND = ":kind"
"""Key that marks the JSON forms of outcomes and digests."""

_session: RankSession | None = None
"""Of the group that is open: torch knows one default group a process."""

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
        """Rank 0's `value`, which JSON can hold, on every rank."""

    def maximum(self, value: int) -> int:
        """The largest `value` of all ranks."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on at least one rank."""

    def gather(self, value: T) -> list[T]:
        """Every rank's `value`, which JSON can hold, in rank order, on every rank."""


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


def open_ranks(backend: str, key: bytes | None = None) -> None:
    """Open the process group of the ranks that the environment describes, or of this process alone.

    Each rank proves to the others that it holds the key before the group carries anything.

    Args:
        backend: gloo or nccl.
        key: of the run; None for that of the user.

    Raises:
        ConfigError: rank 0 cannot listen on MASTER_ADDR, or others can read the key.
        TransientError: another rank did not arrive, or could not be reached.
    """
    global _session
    from hpc.cluster.process_group import COLLECTIVE_TIMEOUT, RankSession, bind_to_loopback

    if os.environ["WORLD_SIZE"] == "1":
        import torch.distributed as distributed

        # A lone process needs no rendezvous that listens.
        alone = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(
            backend, store=alone, rank=0, world_size=1, timeout=COLLECTIVE_TIMEOUT
        )
        return
    from hpc.cluster.keys import user_key
    from hpc.cluster.rendezvous import meeting_of

    bind_to_loopback(os.environ)
    session = RankSession(meeting_of(key or user_key(), os.environ))
    try:
        session.open_world(backend)
    except BaseException:
        session.close()
        raise
    _session = session


def open_group(ranks: Sequence[int]) -> Any:
    """A further group of `ranks`, opened as the first was. Collective over all ranks.

    Raises:
        TransientError: as of `open_ranks`.
    """
    import torch.distributed as distributed

    if _session is not None:
        return _session.new_group(ranks)
    from hpc.cluster.process_group import COLLECTIVE_TIMEOUT

    return distributed.new_group(ranks, timeout=COLLECTIVE_TIMEOUT)


def close_ranks() -> None:
    """Dissolve the groups of several processes, if there are any."""
    import torch.distributed as distributed

    global _session
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.destroy_process_group()
    if _session is not None:
        _session.close()
        _session = None


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
        """Rank 0's `value`, on every rank, as JSON."""
        import torch.distributed as distributed

        if self.world == 1:
            return decode(encode(value))  # type: ignore[no-any-return]
        text = encode(value) if self.rank == 0 else b""
        length = self.maximum(len(text))
        message = self._padded(text, length)
        with report_lost_ranks(self, "broadcast"):
            distributed.broadcast(message, src=0)
            received: torch.Tensor = message.cpu()
        return decode(received.numpy().tobytes())  # type: ignore[no-any-return]

    def maximum(self, value: int) -> int:
        """The largest `value` of all ranks: one all-reduce of eight bytes, alone none.

        A collective on a GPU waits for everything that was launched before it.
        """
        if self.world == 1:
            return value
        import torch
        import torch.distributed as distributed

        number = torch.tensor([value], dtype=torch.int64, device=self.device)
        with report_lost_ranks(self, "all-reduce"):
            distributed.all_reduce(number, op=distributed.ReduceOp.MAX)
            return int(number.item())

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on at least one rank."""
        return self.maximum(int(flag)) > 0

    def gather(self, value: T) -> list[T]:
        """Every rank's `value` in rank order, as JSON."""
        if self.world == 1:
            return [decode(encode(value))]
        import torch
        import torch.distributed as distributed

        text = encode(value)
        length = self.maximum(len(text))
        message = self._padded(text, length)
        messages = [torch.empty_like(message) for _ in range(self.world)]
        with report_lost_ranks(self, "gather"):
            distributed.all_gather(messages, message)
            return [decode(each.cpu().numpy().tobytes()) for each in messages]

    def _padded(self, text: bytes, length: int) -> torch.Tensor:
        """JSON as a tensor; blanks behind it change nothing."""
        import torch

        return torch.frombuffer(bytearray(text.ljust(length)), dtype=torch.uint8).to(self.device)


def encode(value: Any) -> bytes:
    """`value` as JSON, in which outcomes and digests have forms of their own.

    Raises:
        TypeError: it holds something else that JSON cannot, or would change.
    """
    _require_text_keys(value)
    return json.dumps(value, default=_to_json).encode()


def decode(text: bytes) -> Any:
    """The value that was encoded."""
    return json.loads(text, object_hook=_from_json)


def _require_text_keys(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"ranks exchange JSON, which has no key of type {type(key)}")
            _require_text_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_text_keys(inner)


def _to_json(value: Any) -> dict[str, Any]:
    if isinstance(value, Digest):
        return {_KIND: "digest", "bytes": value.bytes, "sha256": value.sha256}
    if isinstance(value, Outcome):
        _require_text_keys(value.value)
        error = None if value.kind is None else value.kind.__name__
        return {_KIND: "outcome", "rank": value.rank, "value": value.value,
                "failure": value.failure, "error": error}  # fmt: skip
    raise TypeError(f"ranks exchange JSON, which holds no {type(value)}")


def _from_json(fields: dict[str, Any]) -> Any:
    if fields.get(_KIND) == "digest":
        return Digest(fields["bytes"], fields["sha256"])
    if fields.get(_KIND) == "outcome":
        error = None if fields["error"] is None else _error_class(fields["error"])
        return Outcome(fields["rank"], fields["value"], fields["failure"], error)
    return fields


def _error_class(name: str) -> type[HpcError]:
    """The class of our errors with that name; HpcError for one that is not known here."""
    classes: list[type[HpcError]] = [HpcError]
    for known in classes:
        if known.__name__ == name:
            return known
        classes += known.__subclasses__()
    return HpcError


@contextlib.contextmanager
def report_lost_ranks(ranks: RankGroup, operation: str | None = None) -> Iterator[None]:
    """Report a collective that fails because another rank is gone as a TransientError.

    Args:
        ranks: this process among the ranks.
        operation: the one collective that runs within, of which every RuntimeError means this;
            None if other work runs too, where only those of gloo and nccl do.

    Raises:
        TransientError: instead of the RuntimeError of gloo or nccl.
    """
    try:
        yield
    except RuntimeError as error:
        if operation is None and not any(name in str(error).lower() for name in _BACKENDS):
            raise
        during = f" in a {operation}" if operation is not None else ""
        raise TransientError(
            f"rank {ranks.rank} of {ranks.world} lost the connection to the other ranks{during}: "
            f"{error}. Another process of the job has ended or hangs; see its log, then resume."
        ) from error


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """Result or failure of an action on one rank."""

    rank: int
    value: T | None = None
    failure: str | None = None
    """Message of what was raised; None if the action succeeded."""
    kind: type[HpcError] | None = None
    """Class of the exception if it is an HpcError."""


def try_together(ranks: RankGroup, action: Callable[[], T]) -> list[Outcome[T]]:
    """Run `action` on every rank; every rank gets the outcomes of all, in rank order.

    What it returns is exchanged as JSON.

    An exception stays on its rank as a log line with its traceback; what to raise is for the
    caller to decide, on all ranks alike.
    """
    return ranks.gather(_outcome(ranks.rank, action))


def on_rank_0(ranks: RankGroup, action: Callable[[], T]) -> Outcome[T]:
    """Run `action`, whose result JSON can hold, on rank 0; every rank gets its outcome."""
    mine: Outcome[T] = _outcome(0, action) if ranks.rank == 0 else Outcome(0)
    return ranks.broadcast(mine)


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
