"""A process that trains alone: a group of one, which nobody else can reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

_RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

ALONE = """
import json, psutil, torch
from sarhpc.training.ranks import join, leave
ranks = join(1, deterministic=True, seed=0)
total = torch.full((1,), 3.0)
torch.distributed.all_reduce(total)
leave()
again = join(1, deterministic=True, seed=0)
ports = [c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"]
print(json.dumps([ranks.rank, again.world, total.item(), ports]))
"""


@pytest.mark.slow
def test_a_lone_rank_joins_again_and_listens_to_this_machine_only() -> None:
    known = {name: value for name, value in os.environ.items() if name not in _RANK}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        env=known | {"DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    rank, world, total, addresses = json.loads(done.stdout.splitlines()[-1])
    assert (rank, world, total) == (0, 1, 3.0)
    assert set(addresses) <= {"127.0.0.1"}
