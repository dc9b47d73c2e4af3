"""An all-reduce between processes, checked and timed.

Run in every rank as `python -m hpc.cluster.reduce_probe BACKEND [RENDEZVOUS]`, with RANK and
WORLD_SIZE in the environment, or under `srun`; rank 0 prints one JSON line.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

_FLOATS = 2**22
_ROUNDS = 5


def rank_and_rendezvous(environment: Mapping[str, str]) -> tuple[int, int, str]:
    """Rank, number of ranks and rendezvous address, from the launcher's variables or Slurm's."""
    rank = int(environment.get("RANK") or environment.get("SLURM_PROCID") or 0)
    world = int(environment.get("WORLD_SIZE") or environment.get("SLURM_NTASKS") or 1)
    address = environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    # Below the ephemeral ports, and different for the next job on the same node.
    port = 20000 + int(environment.get("SLURM_JOB_ID") or os.getppid()) % 10000
    return rank, world, f"tcp://{address}:{port}"


def measure(backend: str, rank: int, world: int, rendezvous: str) -> dict[str, Any]:
    """Time and rate of an all-reduce of 16 MiB, after its sum was verified.

    Returns:
        backend, ranks, seconds to connect, seconds for one all-reduce and its rate in GB/s.

    Raises:
        RuntimeError: the sum is wrong, or the ranks do not connect within a minute.
    """
    import torch
    import torch.distributed as distributed

    begin = time.monotonic()
    distributed.init_process_group(
        backend,
        init_method=rendezvous,
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=60),
    )
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    numbers = torch.full((_FLOATS,), float(rank + 1), device=device)
    distributed.all_reduce(numbers)
    total = world * (world + 1) / 2
    if float(numbers[0]) != total or float(numbers[-1]) != total:
        raise RuntimeError(f"all-reduce gave {float(numbers[0])} instead of {total}")
    met = time.monotonic() - begin
    begin = time.monotonic()
    for _ in range(_ROUNDS):
        distributed.all_reduce(numbers)
    if device.type == "cuda":
        torch.cuda.synchronize()
    took = (time.monotonic() - begin) / _ROUNDS
    distributed.destroy_process_group()
    rate = numbers.numel() * numbers.element_size() / took / 1e9
    return {"backend": backend, "ranks": world, "meet_s": met, "seconds": took, "gb_s": rate}


if __name__ == "__main__":
    own_rank, ranks, meeting = rank_and_rendezvous(os.environ)
    found = measure(sys.argv[1], own_rank, ranks, sys.argv[2] if len(sys.argv) > 2 else meeting)
    if own_rank == 0:
        print(json.dumps(found))
