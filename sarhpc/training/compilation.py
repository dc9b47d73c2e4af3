"""Compiling the U-Net of a training, and checking that its gradients stay the same.

torch 2.13 compiles a U-Net for CPUs so that its images are right and some of its gradients are
zero. A training would go on silently, so gradients are compared before the first step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hpc.errors import NumericalError
from sarhpc.diffusion.families.sdxl import SIZE_IDS, micro_conditioning

TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.25}
"""Type of the weights -> largest distance of a gradient from the plain one, as a share of it."""
_COUNTS = 1e-2
"""Gradients smaller than this share of the largest are left out: they are mostly rounding."""


Backend = str | Callable[..., Any]


def compile_network(network: nn.Module, images: int, backend: Backend = "inductor") -> None:
    """Compile a U-Net in place, for the very shapes it meets.

    Names of parameters and modules stay as they are. Its gradients, also that of the text it
    reads, are compared with those of the plain network on `images` random images of the size it
    was made for.

    Raises:
        NumericalError: some are not the same.
    """
    inputs = _inputs(network, images)
    plain = _gradients(network, inputs)
    network.compile(dynamic=False, backend=backend)
    compiled = _gradients(network, inputs)
    kind = next(network.parameters()).dtype
    largest = max((float(g.norm()) for g in plain.values()), default=0.0)
    apart = {
        name: float((compiled[name] - gradient).norm() / gradient.norm())
        for name, gradient in plain.items()
        if float(gradient.norm()) > _COUNTS * largest
    }
    wrong = [name for name, share in apart.items() if not share <= TOLERANCE[kind]]
    if wrong:
        raise NumericalError(
            f"train.compile=true: {len(wrong)} of {len(apart)} gradients of the compiled "
            f"{type(network).__name__} are not those of the plain one, first {wrong[0]}, off by "
            f"{apart[wrong[0]]:.0%}; leave train.compile out"
        )


def _inputs(network: nn.Module, images: int) -> dict[str, Any]:
    """What the network reads, random, the same each time."""
    config: Any = network.config
    like = next(network.parameters())
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(like)

    side = int(config.sample_size)
    given: dict[str, Any] = {
        "sample": drawn(images, config.in_channels, side, side),
        "timestep": torch.full((images,), 500, device=like.device),
        "encoder_hidden_states": drawn(images, 8, config.cross_attention_dim),
    }
    if config.addition_embed_type == "text_time":
        sizes = SIZE_IDS * config.addition_time_embed_dim
        pooled = config.projection_class_embeddings_input_dim - sizes
        size_ids = torch.full((images, SIZE_IDS), 64.0, device=like.device, dtype=like.dtype)
        given["added_cond_kwargs"] = micro_conditioning(drawn(images, pooled), size_ids)
    return given


def _gradients(network: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """The gradient in fp32 of the text and of each parameter that learns; leaves none behind."""
    text = inputs["encoder_hidden_states"].detach().requires_grad_()
    answer = network(**{**inputs, "encoder_hidden_states": text}, return_dict=False)[0].float()
    target = torch.linspace(-1, 1, answer.numel(), device=answer.device).view_as(answer)
    (answer - target).square().mean().backward()
    found = {
        name: parameter.grad.detach().float().clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    network.zero_grad(set_to_none=True)
    return {**found, "encoder_hidden_states": text.grad.float()}
