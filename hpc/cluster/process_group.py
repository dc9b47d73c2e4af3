"""torch.distributed process groups whose members have proved themselves to each other.

gloo takes whoever connects to a listening rank first for the rank it waits for. So all ranks
arrive at the authenticated rendezvous before any of them listens; then each sends each other one a
code that only a holder of the secret can compute, before the group carries anything else. A group
in which a code is wrong or absent is dissolved and opened again, on other ports. nccl gives its
connections a random number that it exchanges through the rendezvous, and needs no proof of ours.
"""

from __future__ import annotations

import contextlib
import datetime
import hmac
import logging
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from hpc.cluster.keys import derive_key
from hpc.cluster.rendezvous import ARRIVAL_S, Client, Meeting, Server, arrive, torch_store
from hpc.errors import TransientError

_CODE = 32
_OPEN_S = 20.0
"""Seconds to connect all pairs of a group, once all ranks have arrived."""
_PROVE_S = 10.0
"""Seconds for the proofs of all pairs."""
_TRIES = 3
COLLECTIVE_TIMEOUT = datetime.timedelta(hours=6)
"""Of a collective, on any backend. Ranks wait in one for whatever a rank does alone; how long that
may take is for the watchdog to say, which writes stacks, so its limits are all shorter."""

_stores: list[Any] = []

_log = logging.getLogger(__name__)


class RankSession:
    """The rendezvous of this rank, and the groups it opened through it; until `close`."""

    def __init__(self, meeting: Meeting, arrival_s: float = ARRIVAL_S) -> None:
        """Return when every rank has arrived, within `arrival_s`.

        Raises:
            ConfigError: rank 0 cannot listen.
            TransientError: another rank does not arrive.
        """
        self._meeting = meeting
        self._server = Server(meeting) if meeting.rank == 0 else None
        try:
            self._client = Client(meeting, arrival_s)
            arrive(meeting, self._client, arrival_s)
        except BaseException:
            if self._server is not None:
                self._server.close()
            raise
        self._opened = 0
        self._store = torch_store(self._client)
        # torch keeps its half of a store that is written in Python, not the Python half.
        _stores.append(self._store)

    def open_world(self, backend: str) -> None:
        """Open the default process group of all ranks.

        Raises:
            TransientError: some connection of each of three groups was not of a rank.
        """
        import torch.distributed as distributed

        meeting, store = self._meeting, self._store
        prefixed = distributed.PrefixStore  # type: ignore[attr-defined]

        def open_group(name: str) -> Any:
            """The default group, opened under a prefix of the store that no earlier try used."""
            distributed.init_process_group(
                backend,
                store=prefixed(name, store),
                rank=meeting.rank,
                world_size=meeting.world,
                timeout=datetime.timedelta(seconds=_OPEN_S)
                if backend == "gloo"
                else COLLECTIVE_TIMEOUT,
            )
            return distributed.group.WORLD

        if backend != "gloo":
            open_group("world")
            return
        self._open_proven(open_group, range(meeting.world))

    def new_group(self, ranks: Sequence[int]) -> Any:
        """The process group of `ranks`, or torch's constant for those that are not its members.

        Raises:
            TransientError: as of `open_world`.
        """
        import torch.distributed as distributed

        if distributed.get_backend() != "gloo":
            return distributed.new_group(ranks, timeout=COLLECTIVE_TIMEOUT)
        limit = datetime.timedelta(seconds=_OPEN_S)
        return self._open_proven(lambda name: distributed.new_group(ranks, timeout=limit), ranks)

    def close(self) -> None:
        """End the rendezvous; the groups are dissolved by then."""
        self._client.close()
        if self._server is not None:
            self._server.close()

    def _open_proven(self, open_group: Callable[[str], Any], members: Sequence[int]) -> Any:
        """A group whose every pair has proved itself; all ranks open it together."""
        import torch.distributed as distributed
        from torch.distributed.distributed_c10d import _set_pg_timeout

        failures: list[str] = []
        for number in range(_TRIES):
            name, group, failure = f"group/{self._opened}/{number}", None, ""
            try:
                group = open_group(name)
                if self._meeting.rank in members:
                    self._prove(group, members, name)
            except (RuntimeError, TransientError) as error:
                failure = f"rank {self._meeting.rank}: {error}"
            failures = self._failures(name, failure)
            if not failures:
                self._opened += 1
                if self._meeting.rank in members:
                    _set_pg_timeout(COLLECTIVE_TIMEOUT, group)
                return group
            _log.warning("a process group is opened again: %s", "; ".join(failures[:3]))
            if group is not None:
                with contextlib.suppress(RuntimeError, ValueError, AssertionError):
                    distributed.destroy_process_group(group)
        raise TransientError(
            f"the ranks cannot connect to each other, or others connect in their place: "
            f"{'; '.join(failures[:3])}. Set GLOO_SOCKET_IFNAME to the interface between the nodes "
            "if there is only one try in the log; otherwise see who uses these nodes"
        )

    def _failures(self, name: str, mine: str) -> list[str]:
        """What went wrong on any rank, the same on every rank."""
        self._client.set(f"{name}/end/{self._meeting.rank}", mine.encode())
        keys = [f"{name}/end/{rank}" for rank in range(self._meeting.world)]
        ends = self._client.get(keys, 3 * (_OPEN_S + _PROVE_S))
        return [end.decode() for end in ends if end]

    def _prove(self, group: Any, members: Sequence[int], name: str) -> None:
        """Exchange a code with every other member.

        Raises:
            TransientError: a member sent another code, or none in time.
        """
        import torch
        import torch.distributed as distributed

        me = self._meeting.rank
        others = [rank for rank in members if rank != me]
        heard = {other: torch.zeros(_CODE, dtype=torch.uint8) for other in others}
        works = []
        for other in others:
            code = torch.frombuffer(bytearray(self._code(name, me, other)), dtype=torch.uint8)
            works.append(distributed.isend(code, other, group))
            works.append(distributed.irecv(heard[other], other, group))
        until = time.monotonic() + _PROVE_S
        for work in works:
            left = max(until - time.monotonic(), 0.001)
            if work is not None:
                work.wait(datetime.timedelta(seconds=left))
        for other, received in heard.items():
            if not hmac.compare_digest(bytes(received.tolist()), self._code(name, other, me)):
                raise TransientError(f"who connected as rank {other} does not hold the secret")

    def _code(self, name: str, sender: int, receiver: int) -> bytes:
        return derive_key(self._meeting.secret, f"{name} from {sender} to {receiver}")


def bind_to_loopback(environment: MutableMapping[str, str]) -> None:
    """Let the ranks listen on the loopback interface alone where all of them are on this node.

    What the profile or the user says about interfaces stays.
    """
    world, local = environment.get("WORLD_SIZE"), environment.get("LOCAL_WORLD_SIZE")
    if environment["MASTER_ADDR"].startswith("127.") or (local is not None and local == world):
        environment["MASTER_ADDR"] = "127.0.0.1"
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
        # nccl takes every interface whose name begins so; `=` makes it the whole name.
        environment.setdefault("NCCL_SOCKET_IFNAME", "=lo")
