"""The rendezvous of ranks: for holders of the secret, whatever others do to its port."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from hpc.cluster import authenticated, rendezvous
from hpc.cluster.keys import (
    derive_key,
    is_own_key,
    read_run_key,
    replace_run_key,
    run_key,
    user_key,
)
from hpc.cluster.rendezvous import Client, Meeting, Server, arrive, meeting_of
from hpc.errors import ConfigError, TransientError

SECRET = b"s" * 32
ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


def meeting(rank: int = 0, world: int = 1, secret: bytes | None = None) -> Meeting:
    return Meeting(secret or os.urandom(32), "127.0.0.1", rank, world)


@pytest.fixture
def place() -> Iterator[Meeting]:
    one = meeting()
    with closing(Server(one)):
        yield one


def test_what_one_rank_writes_every_rank_reads(place: Meeting) -> None:
    with closing(Client(place)) as one, closing(Client(place)) as other:
        one.set("a", b"\0\xff")
        assert other.get(["a"], 5) == [b"\0\xff"]
        assert [one.ask("add", ["n"], amount=2), other.ask("add", ["n"], amount=3)] == [2, 5]
        assert other.ask("delete", ["a"]) is True
        assert one.ask("check", ["a"]) is False


def test_a_key_that_nobody_writes_is_named(place: Meeting) -> None:
    with closing(Client(place)) as client, pytest.raises(TransientError, match="written a, b"):
        client.get(["a", "b"], 0.3)


def test_without_the_secret_nothing_is_served(place: Meeting) -> None:
    other = meeting()
    object.__setattr__(other, "ports", place.ports)  # it has found the port
    with pytest.raises(TransientError, match="not reached rank 0"):
        Client(other, timeout_s=0.3)


def test_a_server_without_the_secret_is_not_believed() -> None:
    """Another user has taken the port before rank 0 came, and answers on it."""
    one = meeting()
    squatter = socket.create_server(("127.0.0.1", one.ports[0]))

    def answer() -> None:
        with suppress(OSError):
            while True:
                peer, _ = squatter.accept()
                peer.sendall(os.urandom(64))

    threading.Thread(target=answer, daemon=True).start()
    with closing(squatter), closing(Server(one)), closing(Client(one, 20)) as client:
        client.set("a", b"1")
        assert client.get(["a"], 5) == [b"1"]


def test_strangers_that_fill_the_port_keep_no_rank_out(place: Meeting) -> None:
    with ExitStack() as stack:
        for number in range(300):
            stranger = socket.create_connection(("127.0.0.1", place.ports[0]), 5)
            stack.callback(stranger.close)
            if number % 2:
                stranger.sendall(os.urandom(50))
        begin = time.monotonic()
        with closing(Client(place, 20)) as client:
            client.set("a", b"1")
        assert time.monotonic() - begin < 5


def test_a_message_can_neither_be_changed_nor_sent_again() -> None:
    left, right = socket.socketpair()
    ends: list[authenticated.Connection] = []
    thread = threading.Thread(target=lambda: ends.append(authenticated.accept(left, SECRET)))
    thread.start()
    client = authenticated.connect(right, SECRET)
    thread.join(5)
    [served] = ends
    client.send(b"one")
    assert served.receive() == b"one"
    frame = bytearray()
    client.socket, whole = _Recorder(frame), client.socket  # type: ignore[assignment]
    client.send(b"two")
    for bad in (bytes(frame[:-1]) + b"x", bytes(frame)):
        whole.sendall(bad)
        if bad == bytes(frame):
            assert served.receive() == b"two"
            whole.sendall(bad)
        with pytest.raises(authenticated.NotAuthenticatedError):
            served.receive()


class _Recorder:
    def __init__(self, frame: bytearray) -> None:
        self._frame = frame

    def sendall(self, data: bytes) -> None:
        self._frame += data


def test_ranks_wait_for_each_other_and_name_who_is_absent(
    place: Meeting,
) -> None:
    three = Meeting(place.secret, place.address, 1, 3)
    with closing(Client(three)) as client, pytest.raises(TransientError, match="rank 0, 2 of 3"):
        arrive(three, client, timeout_s=0.3)


def test_a_start_of_a_job_shares_its_secret_with_no_other_start() -> None:
    starts = [{}, {"MASTER_PORT": "29512"}, {"SLURM_JOB_ID": "7"}, {"SLURM_RESTART_COUNT": "1"}]
    secrets = {meeting_of(SECRET, {**ENVIRONMENT, **more}).secret for more in starts}
    assert len(secrets) == len(starts)
    assert meeting_of(SECRET, {**ENVIRONMENT, "RANK": "1"}).secret in secrets


def test_where_no_port_is_free_the_address_to_set_is_named() -> None:
    one = meeting()
    with ExitStack() as stack:
        for port in set(one.ports):
            with suppress(OSError):
                stack.callback(socket.create_server(("127.0.0.1", port)).close)
        with pytest.raises(ConfigError, match="MASTER_ADDR"):
            Server(one)


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    assert read_run_key(tmp_path) is None
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(run_key(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert os.listdir(tmp_path) == [".key"]
    assert (tmp_path / ".key").stat().st_mode & 0o777 == 0o600
    assert is_own_key(found[0])
    assert derive_key(found[0], "a") != derive_key(found[0], "b")


@pytest.mark.parametrize("damage", ["readable", "short", "link"])
def test_a_key_that_others_may_know_is_refused_and_can_be_replaced(
    tmp_path: Path, damage: str
) -> None:
    first, path = run_key(tmp_path), tmp_path / ".key"
    if damage == "readable":
        path.chmod(0o640)
    elif damage == "short":
        path.write_bytes(b"x")
    else:
        (tmp_path / "elsewhere").write_bytes(first)
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"\.key"):
        run_key(tmp_path)
    assert replace_run_key(tmp_path) != first
    assert run_key(tmp_path) == read_run_key(tmp_path)


def test_a_user_has_one_key_for_ranks_without_a_run() -> None:
    assert user_key() == user_key()
    assert rendezvous.ARRIVAL_S >= 60
