"""How long gloo ranks take to open their first group and a second: ours, TCPStore, FileStore.

    python tools/bench_rendezvous.py [RANKS ...]

Light processes of one machine, forked after the imports; prints the seconds of the slowest rank.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.queues import Queue

import psutil
import torch
import torch.distributed as distributed

import hpc.cluster.process_group  # noqa: F401  # before the fork
from hpc.job.agreement import close_ranks, open_group, open_ranks

_ROUNDS = 3


def _ours(rank: int, world: int, place: str) -> None:
    port = str(20000 + hash(place) % 10000)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT=port)
    open_ranks("gloo", b"k" * 32)
    distributed.barrier(group=open_group(range(world)))
    distributed.barrier()
    close_ranks()


def _tcp(rank: int, world: int, place: str) -> None:
    port = 20000 + hash(place) % 10000
    _torch(f"tcp://127.0.0.1:{port}", rank, world)


def _file(rank: int, world: int, place: str) -> None:
    _torch(f"file://{place}", rank, world)


def _torch(address: str, rank: int, world: int) -> None:
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    distributed.barrier(group=distributed.new_group(range(world)))
    distributed.barrier()
    distributed.destroy_process_group()


def _measure(
    how: Callable[[int, int, str], None], rank: int, world: int, place: str, took: Queue[float]
) -> None:
    torch.set_num_threads(1)
    begin = time.monotonic()
    how(rank, world, place)
    took.put(time.monotonic() - begin)


def _slowest(how: Callable[[int, int, str], None], world: int) -> float:
    context = multiprocessing.get_context("fork")
    took: Queue[float] = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=_measure, args=(how, rank, world, f"{folder}/store", took))
            for rank in range(world)
        ]
        for rank in ranks:
            rank.start()
        found = [took.get(timeout=120) for _ in ranks]
        for rank in ranks:
            rank.join()
    return max(found)


def main() -> None:
    """Measure and print."""
    worlds = [int(word) for word in sys.argv[1:]] or [2, 16, 64]
    print(f"load {psutil.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'ranks':>5} {'ours':>6} {'TCPStore':>8} {'FileStore':>9}")
    for world in worlds:
        rows = [[_slowest(how, world) for how in (_ours, _tcp, _file)] for _ in range(_ROUNDS)]
        ours, tcp, file = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{world:>5} {ours:>6.2f} {tcp:>8.2f} {file:>9.2f}")


if __name__ == "__main__":
    main()
