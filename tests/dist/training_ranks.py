"""A tiny Stable Diffusion bundle, random tiles, and ranks started as real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_ranks(
    script: Path, arguments: Sequence[str], world: int, **variables: str
) -> list[subprocess.Popen[str]]:
    """One process per rank, as a Slurm step would start them."""
    port = str(free_port())
    processes = []
    for rank in range(world):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            **variables,
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, str(script), *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


def finish(processes: Sequence[subprocess.Popen[str]], timeout_s: float = 300) -> list[int]:
    """Exit codes of all ranks; their output goes to the test's own."""
    codes = []
    for process in processes:
        output, _ = process.communicate(timeout=timeout_s)
        print(output)
        codes.append(process.returncode)
    return codes
