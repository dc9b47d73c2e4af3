"""Runs and commands for the tests of submission on a real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mini_slurm import MiniSlurm

PROFILE = """\
executor: slurm
partition: main
gpu_partition: main
requeue: scontrol
grace_s: 20
env: {OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1", DS_ACCELERATOR: cpu}
resources: {cpus_per_task: 2, mem_gb: 1, time_min: 20}
stages:
  train: {nodes: 2, tasks_per_node: 1, mem_gb: 1, time_min: 20}
  generate: {elements: 2, mem_gb: 1, time_min: 20}
"""
"""Training on two nodes, generation as an array of two elements."""

NEVER = "options: {begin: now+1hour}\n"
"""Keeps every job in the queue."""


def write_profile(folder: Path, *more: str) -> Path:
    """The profile of the mini cluster, with more lines."""
    path = folder / "mini.yaml"
    path.write_text(PROFILE + "".join(more))
    return path


def sarhpc(
    cluster: MiniSlurm, *words: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command of a user of `cluster`."""
    return subprocess.run(
        [sys.executable, "-m", "sarhpc.cli", *map(str, words)],
        env={**cluster.env, "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=1500,
    )


_forgotten: set[str] = set()


def jobs_of(cluster: MiniSlurm, run: str, state: str = "all") -> dict[str, str]:
    """Job id -> comment of the jobs of a run that Slurm knows in those states."""
    jobs = _comments(cluster, state)
    return {
        job: comment
        for job, comment in jobs.items()
        if comment.startswith(f"sarhpc:{run}:") and job not in _forgotten
    }


def forget_jobs(cluster: MiniSlurm) -> None:
    """Leave the jobs of now out of `jobs_of`: a repeated test uses the same names again."""
    _forgotten.update(_comments(cluster, "all"))


def _comments(cluster: MiniSlurm, state: str) -> dict[str, str]:
    output = cluster.run("squeue", "-h", "-a", "-t", state, "-o", "%A|%k").stdout
    # A comment of another test may have several lines.
    return dict(line.split("|", 1) for line in output.splitlines() if "|" in line)


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return once `condition` holds; `seconds` are those of a calm machine."""
    until = time.monotonic() + max(3 * seconds, 120)
    while not condition():
        assert time.monotonic() < until, f"not in {seconds:.0f} s: {what}"
        time.sleep(0.3)


def shim(folder: Path, command: str, lines: Sequence[str]) -> dict[str, str]:
    """An environment in which `command` is a script of those lines; `$REAL` is the real one."""
    folder.mkdir(exist_ok=True)
    script = folder / command
    real = next(
        Path(place) / command
        for place in os.environ["PATH"].split(":")
        if (Path(place) / command).exists()
    )
    script.write_text("\n".join(["#!/bin/bash", f"REAL={real}", *lines]) + "\n")
    script.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
