"""Identity of a process, by which others can tell whether it still lives.

A host name is not enough: nodes booted from one image may share it, and so do containers. The boot
id of the kernel and the PID namespace say where a process number means something, and the start
time in clock ticks since boot says whose number it is, whatever the clock of the day does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from hpc.documents import built, parse_json


@dataclass(frozen=True)
class Identity:
    """A process, and the Slurm job it belongs to."""

    host: str
    pid: int
    born: float | None = None
    """Start of the process, s since the epoch; used only where the kernel gives no boot id."""
    start_ticks: int | None = None
    """Start of the process in clock ticks since boot."""
    boot_id: str | None = None
    """Absent where the kernel does not give it, and in leases of version 0.1."""
    pid_namespace: int | None = None
    token: str | None = None
    """Another one for each `own_identity`; None for the identity of another process."""
    job: str | None = None
    """Slurm's id of the job; None outside Slurm."""
    restart: int | None = None
    """Restarts of that job before; None outside Slurm."""
    cluster: str | None = None
    """Slurm's name of the cluster; two that share a file system number their jobs alike."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def to_json(self) -> str:
        """The identity as JSON, without what is absent."""
        fields = dataclasses.asdict(self).items()
        return json.dumps({name: value for name, value in fields if value is not None})


def own_identity() -> Identity:
    """Identity of this process, another one at each call."""
    found = process_identity(os.getpid())
    assert found is not None
    job = os.environ.get("SLURM_JOB_ID") or None
    return dataclasses.replace(
        found,
        token=secrets.token_hex(8),
        job=job,
        restart=int(os.environ.get("SLURM_RESTART_COUNT") or 0) if job else None,
        cluster=os.environ.get("SLURM_CLUSTER_NAME") if job else None,
    )


def process_identity(pid: int) -> Identity | None:
    """Identity of a process here, without its job; None if there is none (zombies are dead)."""
    born = _create_time(pid)
    if born is None:
        return None
    return Identity(socket.gethostname(), pid, born, _start_ticks(pid), *_kernel())


def parse_identity(text: str) -> Identity | None:
    """The identity in a JSON text; None if the text is torn or damaged."""
    try:
        return built(Identity, parse_json(text))
    except ValueError:
        return None


def is_alive(holder: Identity) -> bool | None:
    """Whether the process with the identity `holder` lives; None if it cannot be known here.

    It is known of processes of this kernel and PID namespace, and of earlier starts of this job.
    """
    if _is_earlier_start(holder):
        # Slurm restarts a job only when all processes of its last start are gone, or their node.
        return False
    if holder.boot_id is not None:
        if (holder.boot_id, holder.pid_namespace) != _kernel():
            return None
        return holder.start_ticks is not None and _start_ticks(holder.pid) == holder.start_ticks
    if holder.host != socket.gethostname() or holder.born is None:
        return None
    born = _create_time(holder.pid)
    return born is not None and abs(born - holder.born) < 1.0


def _kernel() -> tuple[str | None, int | None]:
    """Boot id and PID namespace of this process; None where the kernel does not give them."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot_id, os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None, None


def _is_earlier_start(holder: Identity) -> bool:
    job = os.environ.get("SLURM_JOB_ID")
    cluster = os.environ.get("SLURM_CLUSTER_NAME")
    same = holder.cluster is None or cluster is None or holder.cluster == cluster
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    return bool(job) and holder.job == job and same and (holder.restart or 0) < restart


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
