"""The allocation a process finds itself in: which job, which task of it, on which node.

Read from the environment alone, so that asking costs nothing. RANK and WORLD_SIZE come from the
launcher; a process started by `srun` without one takes Slurm's own numbers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Allocation:
    """What the environment says about this process."""

    job_id: str | None = None
    """Slurm's own id of this job, also of one element of an array; None outside Slurm."""
    array_id: str | None = None
    """Id of the array this job is an element of."""
    array_index: int | None = None
    """Slurm's number of that element."""
    array_size: int = 1
    """Elements of that array."""
    restart: int = 0
    """How often Slurm has started this job before."""
    rank: int = 0
    """Number of this process among all of the job."""
    tasks: int = 1
    """Processes of the job."""
    local_rank: int = 0
    """Number of this process among those on its node."""
    cpus: int | None = None
    """CPU cores of this process; None where nothing says so."""
    node: str = ""
    """Name of this node."""
    gpus: tuple[str, ...] = ()
    """GPUs for this process, as CUDA_VISIBLE_DEVICES names them."""

    @property
    def name(self) -> str:
        """Job id and restart, unique to one start of one job: `123-0`; outside Slurm by process."""
        return f"{self.job_id}-{self.restart}" if self.job_id else str(os.getpid())


def current_allocation(environment: Mapping[str, str] | None = None) -> Allocation:
    """The allocation of this process."""
    env = os.environ if environment is None else environment
    # A shell inside an allocation carries SLURM_PROCID too; only a step's tasks are ranks.
    in_step = "SLURM_STEP_ID" in env and "SLURM_PROCID" in env

    def number(name: str, slurm: str) -> int | None:
        text = env.get(name) or (env.get(slurm) if in_step else None)
        return int(text) if text else None

    local_rank = number("LOCAL_RANK", "SLURM_LOCALID") or 0
    index = env.get("SLURM_ARRAY_TASK_ID")
    cpus = env.get("SLURM_CPUS_PER_TASK")
    return Allocation(
        job_id=env.get("SLURM_JOB_ID"),
        array_id=env.get("SLURM_ARRAY_JOB_ID"),
        array_index=int(index) if index else None,
        array_size=int(env.get("SLURM_ARRAY_TASK_COUNT") or 1),
        restart=int(env.get("SLURM_RESTART_COUNT") or 0),
        rank=number("RANK", "SLURM_PROCID") or 0,
        tasks=number("WORLD_SIZE", "SLURM_STEP_NUM_TASKS") or 1,
        local_rank=local_rank,
        cpus=int(cpus) if cpus else None,
        node=env.get("SLURMD_NODENAME") or socket.gethostname(),
        gpus=_gpus(env, local_rank, number("LOCAL_WORLD_SIZE", "SLURM_TASKS_ON_NODE") or 1),
    )


def _gpus(env: Mapping[str, str], local_rank: int, local_tasks: int) -> tuple[str, ...]:
    """GPUs this task may take: its share of the node's where all tasks of the node see them all."""
    visible = [gpu for gpu in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    on_node = int(env.get("SLURM_GPUS_ON_NODE") or 0) or len(visible)
    if len(visible) < on_node or len(visible) < local_tasks:
        return tuple(visible)
    return tuple(visible[local_rank::local_tasks])
