"""A process that makes progress, and then stands still, under a watchdog."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hpc.job.watchdog import HangLimits, Watchdog, WatchedProcess
from hpc.store.attempts import begin_attempt

LIMITS = HangLimits(
    startup_s=60.0, min_s=1.0, factor=5.0, write_every_s=0.2, poll_s=0.1, response_s=2.0
)


def stand_still_here() -> None:
    time.sleep(120)


def main(directory: Path, rank: int, world: int, beats: int) -> None:
    """Make `beats` steps of 50 ms, then none."""
    if rank == 0:
        begin_attempt(directory, 0)
    process = WatchedProcess(directory, rank, world, attempt=0)
    with Watchdog(process, lambda: 3, LIMITS).watching() as dog:
        for _ in range(beats):
            dog.beat()
            time.sleep(0.05)
        stand_still_here()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
