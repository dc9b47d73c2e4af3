"""Seconds that a checkpoint blocks a rank's steps: saved at once, and in two halves.

    python tools/bench_checkpoint.py [--gb 2] [--turns 3] [--folder DIR]

A rank's share of `--gb` (SD 1.5 on eight ranks: 2.2) is written by torch.save, as DeepSpeed does,
through the checkpoint store. `whole` waits until it is durable, hashed and renamed; `halves`
continues with steps, here matrix products, and polls at each boundary. Slowest and median of the
turns; `steps` is how much longer a step took while the thread was running.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import torch

from hpc.job.agreement import SingleProcess
from hpc.job.checkpoint import CheckpointStore


def step(matrix: torch.Tensor) -> float:
    """Seconds of a step of about a quarter of a second, without disk access."""
    start = time.perf_counter()
    for _ in range(4):
        matrix @ matrix
    return time.perf_counter() - start


def main() -> None:
    """Save in turns, and print the cost of each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", help="on the storage to be measured; default: temporary")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    share = [torch.randn(25_000_000) for _ in range(round(arguments.gb * 10))]
    matrix = torch.randn(1600, 1600)

    def write(directory: Path) -> list[Path]:
        torch.save(share, directory / "state.pt")
        return [directory / "state.pt"]

    stalls: dict[str, list[float]] = {"whole": [], "halves": []}
    steps: dict[str, list[float]] = {"alone": [], "beside": []}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        store = CheckpointStore(Path(folder), SingleProcess(), attempt=0)
        for turn in range(arguments.turns):
            steps["alone"] += [step(matrix) for _ in range(4)]
            start = time.perf_counter()
            store.begin(2 * turn + 1, write, {})
            store.finish(threading.TIMEOUT_MAX)
            stalls["whole"].append(time.perf_counter() - start)
            start = time.perf_counter()
            store.begin(2 * turn + 2, write, {})
            stalled, finished = time.perf_counter() - start, None
            while finished is None:
                steps["beside"].append(step(matrix))
                start = time.perf_counter()
                finished = store.finish(0)
                stalled += time.perf_counter() - start
            stalls["halves"].append(stalled)
    for name, found in stalls.items():
        print(
            f"{name}: median_s={statistics.median(found):.2f} slowest_s={max(found):.2f} "
            f"for {arguments.gb:g} GB"
        )
    alone, beside = (statistics.median(found) for found in steps.values())
    print(f"steps beside the thread take {beside / alone:.2f} of the time they take alone")


if __name__ == "__main__":
    main()
