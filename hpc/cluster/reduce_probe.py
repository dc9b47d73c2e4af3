"""An all-reduce between processes, checked and timed.

Run in every rank as `python -m hpc.cluster.reduce_probe BACKEND [RENDEZVOUS]`, with RANK and
WORLD_SIZE in the environment, or under `srun`; rank 0 prints one JSON line. The ranks prove
themselves by the secret in SARHPC_PROBE_KEY, or by the user's key without one.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from hpc.cluster.keys import derive_key, user_key
from hpc.cluster.process_group import RankSession
from hpc.cluster.rendezvous import Meeting

KEY = "SARHPC_PROBE_KEY"
"""Environment variable of the secret, which only this user's processes can read."""

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

    Args:
        backend: gloo or nccl.
        rank: of this process.
        world: number of ranks.
        rendezvous: `tcp://ADDRESS:PORT`, or `file://PATH` in a directory that only this user can
            write to.

    Raises:
        RuntimeError: the sum is wrong.
        HpcError: the ranks do not connect within a minute.
    """
    import torch
    import torch.distributed as distributed

    begin = time.monotonic()
    session = _open(backend, rank, world, rendezvous)
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
    if session is not None:
        session.close()
    rate = numbers.numel() * numbers.element_size() / took / 1e9
    return {"backend": backend, "ranks": world, "meet_s": met, "seconds": took, "gb_s": rate}


def _open(backend: str, rank: int, world: int, rendezvous: str) -> RankSession | None:
    """Open the process group; the session through which its ranks met over the network."""
    import torch.distributed as distributed

    if not rendezvous.startswith("tcp://"):
        limit = datetime.timedelta(seconds=60)
        distributed.init_process_group(
            backend, init_method=rendezvous, rank=rank, world_size=world, timeout=limit
        )
        return None
    address = rendezvous.removeprefix("tcp://").rpartition(":")[0]
    given = os.environ.get(KEY)
    key = derive_key(bytes.fromhex(given) if given else user_key(), f"probe {rendezvous}")
    session = RankSession(Meeting(key, address, rank, world), arrival_s=60.0)
    session.open_world(backend)
    return session


if __name__ == "__main__":
    own_rank, ranks, meeting = rank_and_rendezvous(os.environ)
    found = measure(sys.argv[1], own_rank, ranks, sys.argv[2] if len(sys.argv) > 2 else meeting)
    if own_rank == 0:
        print(json.dumps(found))
