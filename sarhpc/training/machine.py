"""What options of the engine need of the machine, asked before the engine starts."""

from __future__ import annotations

import torch

from hpc.errors import ConfigError
from sarhpc.training.config import TrainConfig


def require_machine(cfg: TrainConfig, device: torch.device) -> None:
    """Refuse options that this machine cannot carry out.

    Raises:
        ConfigError: no compiler for `compile`, or no asynchronous disk access for weights on NVMe.
    """
    if cfg.compile:
        _require_compiler(device)
    if cfg.offload is not None and cfg.offload.parameters == "nvme":
        _require_asynchronous_disk()


def _require_compiler(device: torch.device) -> None:
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise ConfigError("compile=true needs triton; install it, or leave compile out")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ConfigError(
            "compile=true needs a C++ compiler and finds none; load one (`module load gcc`), name "
            "it in CXX, or leave compile out"
        ) from error


def _require_asynchronous_disk() -> None:
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise ConfigError(
            "offload.parameters=nvme needs DeepSpeed's async_io, which wants a GPU and libaio with "
            "its headers; install libaio-dev, or use offload.parameters=cpu"
        )
