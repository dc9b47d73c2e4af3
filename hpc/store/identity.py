"""Identity of a process, by which others can tell whether it still lives.

A host name is not enough: nodes booted from one image may share it, and so do containers. The boot
id of the kernel and the PID namespace say where a process number means something, and the start
time in clock ticks since boot says whose number it is, whatever the clock of the day does.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def own_identity() -> str:
    """Identity of this process as JSON, another one at each call."""
    return json.dumps(
        {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": _create_time(os.getpid()),
            "start_ticks": _start_ticks(os.getpid()),
            "token": secrets.token_hex(8),
            **_kernel(),
            **_job(),
        }
    )


def is_alive(holder: Mapping[str, Any]) -> bool | None:
    """Whether the process that wrote the identity `holder` lives; None if it cannot be known here.

    It is known of processes of this kernel and PID namespace, and of earlier starts of this job.
    """
    if _is_earlier_start(holder):
        # Slurm restarts a job only when all processes of its last start are gone, or their node.
        return False
    if "boot_id" in holder:
        here = _kernel()
        if any(holder[name] != here.get(name) for name in ("boot_id", "pid_namespace")):
            return None
        ticks: int | None = holder["start_ticks"]
        return ticks is not None and _start_ticks(holder["pid"]) == ticks
    # Written by version 0.1, or where the kernel gives no boot id.
    if holder["host"] != socket.gethostname():
        return None
    born = _create_time(holder["pid"])
    return born is not None and abs(born - holder["born"]) < 1.0


def _kernel() -> dict[str, Any]:
    """Boot id and PID namespace of this process; empty where the kernel does not give them."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"boot_id": boot_id, "pid_namespace": os.stat("/proc/self/ns/pid").st_ino}
    except OSError:
        return {}


def _job() -> dict[str, Any]:
    """The Slurm job this process belongs to; empty outside Slurm."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return {}
    cluster = os.environ.get("SLURM_CLUSTER_NAME")
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    return {"job": job, "restart": restart} | ({"cluster": cluster} if cluster else {})


def _is_earlier_start(holder: Mapping[str, Any]) -> bool:
    mine = _job()
    if not mine or holder.get("job") != mine["job"]:
        return False
    # Two clusters that share a file system number their jobs alike.
    same = holder.get("cluster", mine.get("cluster")) == mine.get("cluster")
    return same and bool(holder["restart"] < mine["restart"])


def _start_ticks(pid: int) -> int | None:
    """Start of a process here in clock ticks since boot; None without one (zombies are dead)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _create_time(pid: int) -> float | None:
    """Start of a process here, s since the epoch; None without one (zombies are dead)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
