"""Tensors of a batch on the device of a rank, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNED = 64
"""Each tensor begins at a multiple of so many numbers, as kernels read them fastest."""


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors on `device`, in order.

    On a GPU all of one type travel together, from pinned memory: one copy a type, and the host goes
    on meanwhile. torch waits for the GPU at every copy from other memory.
    """
    if device.type != "cuda" or all(tensor.device == device for tensor in tensors):
        return [tensor.to(device) for tensor in tensors]
    found: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [number for number, tensor in enumerate(tensors) if tensor.dtype == dtype]
        moved = _moved_together([tensors[number] for number in alike], device)
        found |= dict(zip(alike, moved, strict=True))
    return [found[number] for number in range(len(tensors))]


def _moved_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of one type, as views of one buffer."""
    starts, end = [], 0
    for tensor in tensors:
        starts.append(end)
        end += -(-tensor.numel() // _ALIGNED) * _ALIGNED
    buffer = torch.empty(end, dtype=tensors[0].dtype, pin_memory=True)
    for start, tensor in zip(starts, tensors, strict=True):
        buffer[start : start + tensor.numel()].view(tensor.shape).copy_(tensor)
    # torch keeps the pinned memory until the copy has been made.
    moved = buffer.to(device, non_blocking=True)
    return [
        moved[start : start + tensor.numel()].view(tensor.shape)
        for start, tensor in zip(starts, tensors, strict=True)
    ]
