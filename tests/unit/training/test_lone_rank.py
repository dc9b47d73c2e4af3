"""A process that trains alone: a group of one, which nobody else can reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

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


STARTED = """
import json, sys, torch
from sarhpc.training.config import LoopConfig
from sarhpc.training.engine import wrap_in_engine, trainable_weights
from sarhpc.training.ranks import join, leave
ranks = join(1, deterministic=True, seed=0)
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW([{"name": "all", "params": list(model.parameters())}])
told = LoopConfig(steps=1, global_batch=1, micro_batch=1, grad_clip=1.0, seed=0, zero_stage=STAGE)
wrap_in_engine(told, model, optimizer, trainable_weights(model), ranks, 1)
leave()
print(json.dumps("torch._inductor.compile_fx" in sys.modules))
"""


def said(code: str) -> Any:
    """What a process of its own prints last."""
    known = {name: value for name, value in os.environ.items() if name not in _RANK}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=known | {"DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_lone_rank_joins_again_and_listens_to_this_machine_only() -> None:
    rank, world, total, addresses = said(ALONE)
    assert (rank, world, total) == (0, 1, 3.0)
    assert set(addresses) <= {"127.0.0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_an_engine_starts_without_torchs_compiler(stage: int) -> None:
    """DeepSpeed would load it into every rank, for an optimiser that nothing here uses."""
    assert said(STARTED.replace("STAGE", str(stage))) is False
