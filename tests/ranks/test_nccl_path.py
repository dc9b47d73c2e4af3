"""What nccl is given, as far as a machine without a GPU can tell: environment, store, groups.

A backend that stands in for nccl does with the store what torch's nccl does: rank 0 publishes the
number by which the ranks know each other, and the others wait for it.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
from forked import server
from training_ranks import finish

from hpc.cluster.process_group import bind_to_loopback
from hpc.cluster.rendezvous import Client, Meeting, Server, torch_store
from hpc.job.watchdog import HangLimits

NAMES = ("MASTER_ADDR", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


def join(folder: Path, rank: int, port: int) -> None:
    """A rank that opens its groups by the backend that stands in for nccl."""
    from hpc.job.agreement import close_ranks, open_group, open_ranks

    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="localhost.localdomain", MASTER_PORT=str(port))
    opened: list[dict[str, Any]] = []

    def create(store: Any, rank: int, size: int, timeout: datetime.timedelta) -> Any:
        if rank == 0:
            store.set("0", secrets.token_hex(64))
        store.wait(["0"], datetime.timedelta(seconds=60))
        named = {name: os.environ.get(name) for name in NAMES}
        seconds = timeout.total_seconds()
        opened.append({"id": store.get("0").decode(), "seconds": seconds, **named})
        return distributed.ProcessGroupGloo(store, rank, size, timeout)

    distributed.Backend.register_backend("stand_in", create, devices=["cpu"])
    open_ranks("stand_in", b"k" * 32)
    inner = open_group([0, 1])
    total = torch.tensor([rank + 1])
    distributed.all_reduce(total, group=inner)
    close_ranks()
    (folder / f"{rank}.json").write_text(json.dumps({"opened": opened, "total": int(total)}))


@pytest.mark.slow
def test_a_backend_like_nccl_meets_through_the_authenticated_store_alone(tmp_path: Path) -> None:
    ranks = [
        server().Process(target=join, args=(tmp_path, rank, 20000 + os.getpid() % 10000))
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    assert finish(ranks, 120) == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second, "both have the same number for each group"
    assert first["total"] == 3
    world, inner = first["opened"]
    assert world["id"] != inner["id"]
    for group in (world, inner):
        assert [group[name] for name in NAMES] == ["127.0.0.1", "=lo", "lo"]
        assert group["seconds"] > HangLimits().max_s, "the watchdog ends a hang before nccl does"


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ({"LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "n1"}, ("127.0.0.1", "=lo", "lo")),
        ({"MASTER_ADDR": "127.0.0.2"}, ("127.0.0.1", "=lo", "lo")),
        ({"LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "n1"}, ("n1", None, None)),
        ({"MASTER_ADDR": "n1"}, ("n1", None, None)),
        (
            {"LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "n1", "NCCL_SOCKET_IFNAME": "ib0"},
            ("127.0.0.1", "ib0", "lo"),
        ),
        (
            {"LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "n1", "NCCL_SOCKET_IFNAME": "ib0"},
            ("n1", "ib0", None),
        ),
    ],
)
def test_ranks_of_one_node_listen_on_loopback_and_what_the_profile_says_stays(
    given: dict[str, str], bound: tuple[str | None, ...]
) -> None:
    environment = {"WORLD_SIZE": "8", **given}
    bind_to_loopback(environment)
    assert tuple(environment.get(name) for name in NAMES) == bound


def test_the_store_does_all_that_torch_asks_of_it_for_nccl() -> None:
    meeting = Meeting(secrets.token_bytes(32), "127.0.0.1", 0, 2)
    served = Server(meeting)
    ends = [Client(meeting, 20), Client(meeting, 20)]
    kept = [torch_store(end) for end in ends]
    try:
        one, two = (distributed.PrefixStore("world", store) for store in kept)
        one.set("0", "a number")
        two.wait(["0"], datetime.timedelta(seconds=20))
        assert two.get("0") == b"a number"
        assert two.multi_get(["0", "0"]) == [b"a number"] * 2
        assert (one.add("count", 1), two.add("count", 2)) == (1, 3)
        assert one.check(["0", "count"])
        assert not one.check(["other"])
        assert two.compare_set("0", "a number", "another") == b"another"
        assert one.get("0") == b"another"
        assert one.delete_key("0")
        assert not two.check(["0"])
    finally:
        for end in ends:
            end.close()
        served.close()
