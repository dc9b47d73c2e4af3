"""The processes of one training: who am I, on which device, with how many threads."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import MutableMapping

import numpy as np
import torch

from hpc.errors import ConfigError
from hpc.job.agreement import RankGroup, TorchRankGroup, close_ranks, open_group, open_ranks

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def join(
    threads: int,
    *,
    deterministic: bool,
    seed: int,
    on_cpu: bool = False,
    key: bytes | None = None,
) -> RankGroup:
    """This process among the ranks of the training (gloo on CPUs, nccl on GPUs).

    Opens the process group. RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT come from
    the environment, as a Slurm task has them; with none of them set the process trains alone.

    Args:
        threads: of this process.
        deterministic: use deterministic algorithms only.
        seed: of the process's random states.
        on_cpu: use no GPU.
        key: by which the ranks prove themselves to each other, that of their run; None for that of
            the user.

    Raises:
        ConfigError: some of the five variables are set and others are not.
        TransientError: another rank did not arrive.
    """
    _complete(os.environ)
    device = torch.device("cpu") if on_cpu else _device(os.environ)
    _make_repeatable(threads, deterministic, seed)
    # DeepSpeed picks its accelerator while it is imported, so the choice has to stand before.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    import deepspeed

    if device.type == "cpu":
        # Its shared-memory collectives are compiled at start (30 s) and gain nothing here.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel("ERROR")
    _disable_progress_bars()
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not torch.distributed.is_initialized():
        open_ranks(backend, key)
    # It takes the group that is open.
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    # Its own groups too admit only ranks that prove themselves.
    deepspeed.comm.comm.cdb.new_group = open_group
    return TorchRankGroup()


def leave() -> None:
    """Dissolve the process group, if there is one of several processes.

    That of a process alone stays for its next training: DeepSpeed keeps groups it made inside it.
    """
    close_ranks()


def _disable_progress_bars() -> None:
    """A bar per rank and model part would fill the logs."""
    # Read when transformers is imported, which is none of this function's business.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "transformers" in sys.modules:
        import transformers

        transformers.utils.logging.disable_progress_bar()


def _complete(environment: MutableMapping[str, str]) -> None:
    given = [name for name in _VARIABLES if name in environment]
    if len(given) == len(_VARIABLES):
        return
    if given and set(given) - {"LOCAL_RANK"}:
        absent = ", ".join(name for name in _VARIABLES if name not in environment)
        raise ConfigError(
            f"{', '.join(given)} are set but {absent} are not; a rank needs all five "
            "(srun and the scripts in slurm/ export them), a single process needs none"
        )
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    environment.update({**alone, "MASTER_PORT": "0"})


def on_gpu() -> bool:
    """Whether `join` takes a GPU."""
    return os.environ.get("DS_ACCELERATOR") != "cpu" and torch.cuda.is_available()


def _device(environment: MutableMapping[str, str]) -> torch.device:
    if not on_gpu():
        return torch.device("cpu")
    # Where each task sees only its own GPU, that one is number 0 whatever the local rank says.
    index = int(environment["LOCAL_RANK"]) % torch.cuda.device_count()
    environment["LOCAL_RANK"] = str(index)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _make_repeatable(threads: int, deterministic: bool, seed: int) -> None:
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling fresh memory costs time and changes no result of code that writes before it reads.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
