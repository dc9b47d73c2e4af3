"""Versions of everything that computes, and the matrix peak of the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from typing import Any

import torch

from hpc.cluster.gpu_driver import driver_version

_PACKAGES = ("torch", "deepspeed", "diffusers", "transformers", "accelerate", "peft", "numpy")


def tell_machine(tell: Callable[..., None]) -> None:
    """Write versions, devices, and the peak."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    tell(result="versions", python=platform.python_version(), **versions)
    seen = torch.cuda.is_available()
    facts: dict[str, Any] = {"cuda": torch.version.cuda, "driver": driver_version()}
    if seen:
        card = torch.cuda.get_device_properties(0)
        facts |= {"gpu": card.name, "memory_gib": round(card.total_memory / 2**30, 1)}
        facts |= {"gpus": torch.cuda.device_count()}
    tell(result="device", kind="cuda" if seen else "cpu", **facts)
    dtype, side = (torch.bfloat16, 8192) if seen else (torch.float32, 512)
    tell(result="matrix peak", dtype=str(dtype), side=side, tflops=matrix_peak(dtype, side))


def matrix_peak(dtype: torch.dtype, side: int, rounds: int = 20) -> float:
    """TFLOP/s of square products."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait()
    began = time.perf_counter()
    for _ in range(rounds):
        left @ right
    _wait()
    return rounds * 2 * side**3 / (time.perf_counter() - began) / 1e12


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
