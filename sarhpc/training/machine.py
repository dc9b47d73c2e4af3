"""Checks that the machine supports the options of the engine, before the engine starts."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from hpc.errors import ConfigError
from sarhpc.training.config import TrainConfig


def require_machine(cfg: TrainConfig, device: torch.device) -> None:
    """Raise ConfigError unless this machine supports the options.

    Raises:
        ConfigError: `compile` without a compiler to be trusted, no asynchronous disk access for
            weights on NVMe, or no W&B to write a run with.
    """
    if cfg.compile:
        _require_compiler(device)
    if cfg.offload is not None and cfg.offload.parameters == "nvme":
        _require_asynchronous_disk()
    if cfg.wandb and find_spec("wandb") is None:
        raise ConfigError("wandb=true needs W&B: pip install 'sarhpc[wandb]', or leave wandb out")


def _require_compiler(device: torch.device) -> None:
    if device.type == "cpu":
        raise ConfigError(
            "compile=true on CPUs: torch 2.13 compiles the U-Net so that some of its gradients "
            "are zero; leave compile out"
        )
    from torch.utils._triton import has_triton

    if not has_triton():
        raise ConfigError("compile=true needs triton; install it, or leave compile out")


def _require_asynchronous_disk() -> None:
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise ConfigError(
            "offload.parameters=nvme needs DeepSpeed's async_io, which requires a GPU and libaio "
            "with its headers; install libaio-dev, or use offload.parameters=cpu"
        )
