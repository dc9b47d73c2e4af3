"""Sampling without waiting for the GPU: what a pipeline reads at each step lies there beforehand.

torch waits for the GPU whenever a number of it is read and whenever pageable memory is copied to
it. diffusers does so at each step: schedulers index by timesteps, the networks copy the timestep,
and SDXL copies its size ids in each batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_DENOISERS = ("unet", "controlnet")
"""Parts of a pipeline that are given the timestep."""


def step_on_cpu(scheduler: Any) -> Any:
    """The scheduler, with its timesteps on the CPU on every device.

    The coefficients are there, and a timestep on a GPU that indexes them is waited for: in each
    step of DDIM five times.
    """
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def on_cpu(*args: Any, device: Any = None, **options: Any) -> None:
        set_timesteps(*args, device="cpu", **options)

    scheduler.set_timesteps = on_cpu
    return scheduler


def begin_at_first(scheduler: Any) -> Any:
    """The scheduler, which begins at the first of its timesteps even if the second equals it.

    Where timesteps are rounded (DPM-Solver and UniPC with beta sigmas, from some 50 steps on) the
    first may come twice, and diffusers then begins at the second and runs past the end.
    """
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def from_first(*args: Any, **options: Any) -> None:
        set_timesteps(*args, **options)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)

    scheduler.set_timesteps = from_first
    return scheduler


def unblock(pipeline: Any) -> Any:
    """The pipeline, whose scheduler steps on the CPU, as it samples without waiting for its GPU.

    On a CPU it stays as it is.
    """
    if pipeline.device.type != "cuda":
        return pipeline
    table = _Timesteps(pipeline.device)
    scheduler = pipeline.scheduler
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def kept(*args: Any, **options: Any) -> None:
        set_timesteps(*args, **options)
        table.keep(scheduler.timesteps)

    scheduler.set_timesteps = kept
    for name in _DENOISERS:
        network = getattr(pipeline, name, None)
        if isinstance(network, nn.Module):
            network.register_forward_pre_hook(table.replace_timestep)
    if hasattr(pipeline, "_get_add_time_ids"):
        pipeline._get_add_time_ids = _kept_on(pipeline.device, pipeline._get_add_time_ids)
    return pipeline


class _Timesteps:
    """The timesteps of a schedule on the GPU, by their value."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._values: list[float] = []
        self._rows: dict[float, Tensor] = {}

    def keep(self, timesteps: Tensor) -> None:
        """Copy the timesteps of a schedule, which are on the CPU, unless they are there."""
        values = timesteps.tolist()
        if values != self._values:
            rows = without_waiting(timesteps, self._device)
            self._values, self._rows = values, dict(zip(values, rows, strict=True))

    def replace_timestep(self, _network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs of a network, with its timestep on the GPU."""
        sample, timestep, *rest = inputs
        if isinstance(timestep, Tensor) and timestep.device.type == "cpu":
            timestep = self._rows.get(timestep.item(), timestep)
        return (sample, timestep, *rest)


def _kept_on(device: torch.device, make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, whose result is copied to `device` once for the same arguments."""
    known: dict[str, Any] = {}

    def made(*args: Any, **named: Any) -> Any:
        """What `make` returns, on `device`."""
        key = repr((args, named))
        if key not in known:
            known[key] = _moved(make(*args, **named), device)
        return known[key]

    return made


def _moved(made: Any, device: torch.device) -> Any:
    """A tensor, or several as the pipelines that begin with an image make them, on `device`."""
    if isinstance(made, tuple):
        return tuple(_moved(each, device) for each in made)
    return without_waiting(made, device)


def without_waiting(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; where that is a GPU, copied from pinned memory."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def starting_noise(
    pipeline: Any, generators: Sequence[torch.Generator], size: tuple[int | None, int | None]
) -> Tensor:
    """Initial noise (B, C, h, w) of a batch, as the pipeline draws it from generators of the CPU.

    Args:
        pipeline: that samples.
        generators: of each image, on the CPU: the same noise on every device.
        size: height and width of the images, px; None for the size the model was made for.
    """
    unet, reduction = pipeline.unet, pipeline.vae_scale_factor
    native = int(unet.config.sample_size)
    side = [native if px is None else int(px) // reduction for px in size]
    drawn = [
        torch.randn((1, unet.config.in_channels, *side), generator=generator, dtype=unet.dtype)
        for generator in generators
    ]
    return without_waiting(torch.cat(drawn), pipeline.device)
