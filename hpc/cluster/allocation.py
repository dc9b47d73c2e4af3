"""The allocation of a process: its job, its task, its node.

Read from environment variables only, so it is cheap. RANK and WORLD_SIZE come from the launcher; a
process started by `srun` without one uses Slurm's own numbers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Allocation:
    """Job, task, node and devices of this process."""

    job_id: str | None = None
    """Slurm's id of this job or array element; None outside Slurm."""
    array_id: str | None = None
    """Id of the array that this job is an element of."""
    array_index: int | None = None
    """Slurm's index of that element."""
    array_size: int = 1
    """Elements of that array."""
    restart: int = 0
    """Number of earlier starts of this job."""
    rank: int = 0
    """Rank of this process within the job."""
    tasks: int = 1
    """Processes of the job."""
    local_rank: int = 0
    """Rank of this process on its node."""
    cpus: int | None = None
    """CPU cores of this process; None if unknown."""
    node: str = ""
    """Name of this node."""
    gpus: tuple[str, ...] = ()
    """GPUs of this process, by their names in CUDA_VISIBLE_DEVICES."""

    @property
    def name(self) -> str:
        """Job id and restart, unique to one start: `123-0`; the process id outside Slurm."""
        return f"{self.job_id}-{self.restart}" if self.job_id else str(os.getpid())


def current_allocation(environment: Mapping[str, str] | None = None) -> Allocation:
    """The allocation of this process."""
    env = os.environ if environment is None else environment
    # A shell inside an allocation has SLURM_PROCID too; only tasks of a step are ranks.
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
    """GPUs of this task: its share of the node's if every task of the node sees all of them."""
    visible = [gpu for gpu in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    on_node = int(env.get("SLURM_GPUS_ON_NODE") or 0) or len(visible)
    if len(visible) < on_node or len(visible) < local_tasks:
        return tuple(visible)
    return tuple(visible[local_rank::local_tasks])
