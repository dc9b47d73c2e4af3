"""What a process reads from its environment about its job."""

from __future__ import annotations

import os

from hpc.cluster.allocation import Allocation, current_allocation

STEP = {
    "SLURM_JOB_ID": "12",
    "SLURM_RESTART_COUNT": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_TASKS_ON_NODE": "2",
    "SLURMD_NODENAME": "n2",
}


def test_a_task_of_a_step_knows_its_rank_without_a_launcher() -> None:
    here = current_allocation(STEP)
    assert (here.rank, here.tasks, here.local_rank, here.node) == (3, 4, 1, "n2")
    assert here.name == "12-2"


def test_the_launchers_numbers_count_first() -> None:
    here = current_allocation({**STEP, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})
    assert (here.rank, here.tasks, here.local_rank) == (0, 1, 0)


def test_a_shell_inside_an_allocation_is_no_rank() -> None:
    shell = {"SLURM_JOB_ID": "12", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"}
    assert current_allocation(shell).tasks == 1


def test_outside_slurm_the_process_names_itself() -> None:
    assert current_allocation({}).name == str(os.getpid())
    assert current_allocation({}).array_index is None
    assert Allocation().gpus == ()


def test_gpus_that_all_tasks_of_a_node_see_are_shared_out() -> None:
    sees_all = {**STEP, "CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_ON_NODE": "4"}
    assert current_allocation(sees_all).gpus == ("1", "3")
    bound = {**STEP, "CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_ON_NODE": "4"}
    assert current_allocation(bound).gpus == ("2", "3")
    alone = {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert current_allocation(alone).gpus == ("0", "1")
