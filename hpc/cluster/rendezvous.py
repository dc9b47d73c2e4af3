"""The rendezvous of the ranks of one job: a key-value store that only holders of a secret reach.

It stands where torch's TCPStore would, which anybody on the network may read, write and join.
Rank 0 serves it; every rank, rank 0 too, is a client. The port follows from the secret, so no other
user can occupy it beforehand, and the next one is taken where it is in use.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import json
import logging
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc.cluster import authenticated
from hpc.cluster.keys import derive_key
from hpc.errors import ConfigError, HpcError, TransientError

ARRIVAL_S = 600.0
"""Seconds that ranks wait for each other before the job gives up."""

_PORTS = range(20000, 30000)
"""Below the ephemeral ports."""
_TRIES = 16
"""Ports of one rendezvous, in the order in which they are tried."""
_HANDSHAKE_S = 5.0
_MAX_STRANGERS = 128
"""Connections at once that have not proved themselves yet; the oldest gives way."""
_HOLD_S = 0.2
"""How long the server keeps a request for a key that is not there yet."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Meeting:
    """Where and by what secret the ranks of one start of a job find each other."""

    secret: bytes
    address: str
    """Host name or address of rank 0's node."""
    rank: int
    world: int

    @functools.cached_property
    def ports(self) -> tuple[int, ...]:
        """Ports of the server, the first that is free."""
        words = struct.unpack(f">{_TRIES}I", derive_key(self.secret, "ports 0") + derive_key(
            self.secret, "ports 1"))  # fmt: skip
        return tuple(_PORTS[word % len(_PORTS)] for word in words)

    @property
    def is_on_loopback(self) -> bool:
        """Whether all ranks are on this machine, by the address they are given."""
        return self.address in ("localhost", "::1") or self.address.startswith("127.")


def meeting_of(key: bytes, environment: Mapping[str, str]) -> Meeting:
    """The meeting of the ranks that a launcher described by RANK, WORLD_SIZE, MASTER_ADDR.

    Its secret holds for this start of this job alone: a process left over from another is no rank.
    """
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID", "MASTER_PORT", "WORLD_SIZE")
    start = json.dumps([environment.get(name, "") for name in names])
    return Meeting(
        derive_key(key, f"rendezvous {start}"),
        environment["MASTER_ADDR"],
        int(environment["RANK"]),
        int(environment["WORLD_SIZE"]),
    )


class _Table:
    """Keys and values, and who waits for them."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def answer(self, request: Mapping[str, Any]) -> Any:
        """What a client gets for its request."""
        operation, keys = request["do"], request["keys"]
        values = [base64.b64decode(value) for value in request.get("values", ())]
        with self._changed:
            if operation == "get":
                until = time.monotonic() + _HOLD_S
                while not all(key in self._values for key in keys):
                    if not self._changed.wait(until - time.monotonic()):
                        return None
                return [base64.b64encode(self._values[key]).decode() for key in keys]
            if operation == "check":
                return all(key in self._values for key in keys)
            if operation == "count":
                return len(self._values)
            return self._change(operation, keys, values, int(request.get("amount", 0)))

    def _change(
        self, operation: str, keys: Sequence[str], values: Sequence[bytes], amount: int
    ) -> Any:
        self._changed.notify_all()
        if operation == "set":
            self._values.update(zip(keys, values, strict=True))
            return True
        [key] = keys
        if operation == "add":
            total = int(self._values.get(key, b"0")) + amount
            self._values[key] = str(total).encode()
            return total
        if operation == "delete":
            return self._values.pop(key, None) is not None
        if operation == "compare_set":
            expected, desired = values
            # torch's stores set an absent key if nothing was expected.
            if self._values.get(key, b"") == expected:
                self._values[key] = desired
            return base64.b64encode(self._values.get(key, expected)).decode()
        raise HpcError(f"unknown request {operation!r}")


class Server:
    """Serves the store from threads of rank 0 until it is closed."""

    def __init__(self, meeting: Meeting) -> None:
        """Listen on the first free port of the meeting.

        Raises:
            ConfigError: none is free.
        """
        self._secret = meeting.secret
        self._table = _Table()
        self._strangers: OrderedDict[int, socket.socket] = OrderedDict()
        self._known: list[authenticated.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        self._listener = _listen(meeting)
        threading.Thread(target=self._accept, daemon=True, name="rendezvous").start()

    def close(self) -> None:
        """End all connections."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._known:
                connection.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError as error:
                if self._closed:
                    return
                _log.warning("rendezvous: %s", error)  # such as too many open files
                time.sleep(0.05)
                continue
            with self._lock:
                self._strangers[id(peer)] = peer
                if len(self._strangers) > _MAX_STRANGERS:
                    _, oldest = self._strangers.popitem(last=False)
                    with contextlib.suppress(OSError):
                        oldest.shutdown(socket.SHUT_RDWR)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            peer.settimeout(_HANDSHAKE_S)
            connection = authenticated.accept(peer, self._secret)
            peer.settimeout(None)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, HpcError) as error:
            _log.info("rendezvous: refused a connection: %s", error)
            peer.close()
            return
        finally:
            with self._lock:
                self._strangers.pop(id(peer), None)
        with self._lock:
            self._known.append(connection)
        with contextlib.suppress(OSError, HpcError), contextlib.closing(connection):
            while True:
                request = json.loads(connection.receive())
                connection.send(json.dumps(self._table.answer(request)).encode())


def _listen(meeting: Meeting) -> socket.socket:
    """A listening socket on the interface of the meeting's address, if that is of this node."""
    hosts = [meeting.address] if meeting.is_on_loopback else [meeting.address, ""]
    refused: OSError | None = None
    for host in hosts:
        for port in meeting.ports:
            try:
                return socket.create_server((host, port), backlog=256)
            except OSError as error:
                refused = error
    raise ConfigError(
        f"rank 0 cannot listen on {meeting.address}: {refused}; MASTER_ADDR must be an address of "
        "rank 0's node"
    )


class Client:
    """A rank's connection to the store; any thread may use it."""

    def __init__(self, meeting: Meeting, timeout_s: float = ARRIVAL_S) -> None:
        """Connect, once rank 0 serves.

        Raises:
            TransientError: nothing at the address has proved itself within `timeout_s`.
        """
        self._lock = threading.Lock()
        self._connection = _reach(meeting, timeout_s)

    def ask(self, do: str, keys: Sequence[str] = (), **fields: Any) -> Any:
        """The store's answer to one request.

        Raises:
            TransientError: rank 0 has gone.
        """
        message = json.dumps({"do": do, "keys": list(keys), **fields}).encode()
        try:
            with self._lock:
                self._connection.send(message)
                return json.loads(self._connection.receive())
        except (OSError, HpcError) as error:
            raise TransientError(
                f"the rendezvous of the ranks is lost ({error}): rank 0 has ended; see its log, "
                "then resume"
            ) from error

    def get(self, keys: Sequence[str], timeout_s: float) -> list[bytes]:
        """Values of `keys` when all of them are there.

        Raises:
            TransientError: they are not within `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        while (values := self.ask("get", keys)) is None:
            if time.monotonic() >= until:
                raise TransientError(
                    f"no rank has written {', '.join(keys[:3])} in {timeout_s:.0f} s: another "
                    "process of the job has ended or hangs; see its log, then resume"
                )
        return [base64.b64decode(value) for value in values]

    def set(self, key: str, value: bytes) -> None:
        """Write the value of a key."""
        self.ask("set", [key], values=[base64.b64encode(value).decode()])

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def _reach(meeting: Meeting, timeout_s: float) -> authenticated.Connection:
    until = time.monotonic() + timeout_s
    last: Exception | None = None
    while time.monotonic() < until:
        for port in meeting.ports:
            try:
                peer = socket.create_connection((meeting.address, port), timeout=_HANDSHAKE_S)
            except OSError as error:
                last = error
                continue
            try:
                connection = authenticated.connect(peer, meeting.secret)
            except (OSError, HpcError) as error:
                last = error
                peer.close()
                continue
            peer.settimeout(None)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        time.sleep(0.1)
    raise TransientError(
        f"rank {meeting.rank} has not reached rank 0 at {meeting.address} in {timeout_s:.0f} s "
        f"({last}); see the log of rank 0, then resume"
    )


@contextlib.contextmanager
def _waiting(meeting: Meeting, client: Client, timeout_s: float) -> Iterator[None]:
    """Say which ranks are absent where the wait for all of them is in vain."""
    try:
        yield
    except TransientError as error:
        absent = [str(rank) for rank in range(meeting.world)
                  if not client.ask("check", [f"arrived/{rank}"])]  # fmt: skip
        raise TransientError(
            f"rank {', '.join(absent[:8])} of {meeting.world} has not arrived in {timeout_s:.0f} "
            "s; see its log, then resume"
        ) from error


def arrive(meeting: Meeting, client: Client, timeout_s: float = ARRIVAL_S) -> None:
    """Return when every rank has come here, so that none listens while another is still to come.

    Raises:
        TransientError: some rank has not; the message names it.
    """
    client.set(f"arrived/{meeting.rank}", b"")
    with _waiting(meeting, client, timeout_s):
        client.get([f"arrived/{rank}" for rank in range(meeting.world)], timeout_s)


def torch_store(client: Client) -> Any:
    """The store as torch.distributed takes it."""
    return _store_class()(client)


@functools.cache
def _store_class() -> type[Any]:
    import torch.distributed as distributed

    class RankStore(distributed.Store):  # type: ignore[name-defined]
        """Reaches rank 0's table by a client; torch calls it from C++."""

        def __init__(self, client: Client) -> None:
            super().__init__()
            self._client = client
            self._timeout = datetime.timedelta(seconds=ARRIVAL_S)
            self._awaited: dict[str, bytes] = {}

        def clone(self) -> Any:
            return self

        def set_timeout(self, timeout: datetime.timedelta) -> None:
            self._timeout = timeout

        def set(self, key: str, value: bytes | str) -> None:
            self._client.set(key, value.encode() if isinstance(value, str) else value)

        def get(self, key: str) -> bytes:
            """The value of a key, once some rank has set it."""
            if (value := self._awaited.pop(key, None)) is not None:
                return value
            return self._client.get([key], self._timeout.total_seconds())[0]

        def wait(self, keys: list[str], timeout: datetime.timedelta | None = None) -> None:
            """Return once every key is set; the values are kept for the `get` that follows."""
            values = self._client.get(keys, (timeout or self._timeout).total_seconds())
            # gloo waits for an address and then gets it: one request for both.
            self._awaited = dict(zip(keys, values, strict=True))

        def check(self, keys: list[str]) -> bool:
            return bool(self._client.ask("check", keys))

        def add(self, key: str, amount: int) -> int:
            return int(self._client.ask("add", [key], amount=amount))

        def compare_set(self, key: str, expected: bytes | str, desired: bytes | str) -> bytes:
            """The value of a key after it was set to `desired` if it was `expected`."""
            words = [v.encode() if isinstance(v, str) else v for v in (expected, desired)]
            values = [base64.b64encode(word).decode() for word in words]
            return base64.b64decode(self._client.ask("compare_set", [key], values=values))

        def getNumKeys(self) -> int:  # noqa: N802  # the name that torch asks for
            return int(self._client.ask("count"))

        def deleteKey(self, key: str) -> bool:  # noqa: N802  # the name that torch asks for
            return bool(self._client.ask("delete", [key]))

    return RankStore
