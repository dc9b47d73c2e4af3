"""Run a function on several real processes that form one gloo group."""

from __future__ import annotations

import datetime
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as distributed
from forked import server

from hpc.job.agreement import RankGroup, TorchRankGroup

RankFunction = Callable[[RankGroup, Path], Any]


def run_ranks(function: RankFunction, directory: Path, world: int = 2) -> list[Any]:
    """Results of `function(ranks, directory)` in rank order.

    A rank that raised gives {"error": class, "text": message}, one that was killed gives None.
    """
    context = server()
    rendezvous = directory / f"rendezvous-{os.urandom(4).hex()}"
    results = [directory / f"{rendezvous.name}-{rank}.json" for rank in range(world)]
    processes = [
        context.Process(target=_rank, args=(function, directory, rendezvous, rank, world))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"a rank of {function} hangs")
    return [json.loads(path.read_text()) if path.exists() else None for path in results]


def _rank(function: RankFunction, directory: Path, rendezvous: Path, rank: int, world: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=30),
    )
    try:
        result = function(TorchRankGroup(), directory)
    except Exception as error:
        traceback.print_exc()
        result = {"error": type(error).__name__, "text": str(error)}
    (directory / f"{rendezvous.name}-{rank}.json").write_text(json.dumps(result))
    os._exit(0)
