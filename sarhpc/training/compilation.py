"""Compiling the U-Net of a training, and checking that its gradients stay the same.

torch 2.13 compiles a whole U-Net for CPUs so that its images are right and some of its gradients
are zero; its repeated blocks come out right. A training would go on silently, so gradients are
compared before the first step.
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

_TEXT = "encoder_hidden_states"
_MOST_SHAPES = 64
"""Shapes that a kind of block is compiled for: those of SD 1.5 and SDXL are below ten."""

Backend = str | Callable[..., Any]


def compile_network(
    network: nn.Module, images: int, tokens: int, backend: Backend = "inductor"
) -> None:
    """Compile the blocks that a U-Net repeats, in place, for the very shapes it meets.

    Blocks of one shape are compiled once, which takes a fraction of the time that the whole network
    does. Names of parameters and modules stay as they are. Its gradients, also that of the text it
    reads, are compared with those of the plain network on `images` random images of the size it was
    made for, with `tokens` tokens of text each.

    Raises:
        NumericalError: some are not the same.
    """
    inputs = _inputs(network, images, tokens)
    plain = _gradients(network, inputs)
    _compile_blocks(network, backend)
    distances = _distances(network, inputs, plain)
    kind = next(network.parameters()).dtype
    largest = max((norm for norm, _ in distances.values()), default=0.0)
    apart = {
        name: distance / norm
        for name, (norm, distance) in distances.items()
        if norm > _COUNTS * largest
    }
    wrong = [name for name, share in apart.items() if not share <= TOLERANCE[kind]]
    if wrong:
        raise NumericalError(
            f"train.compile=true: {len(wrong)} of {len(apart)} gradients of the compiled "
            f"{type(network).__name__} are not those of the plain one, first {wrong[0]}, off by "
            f"{apart[wrong[0]]:.0%}; leave train.compile out"
        )


def _compile_blocks(network: Any, backend: Backend) -> None:
    import torch._dynamo.config as dynamo

    # Every size of a block is compiled for itself; past the limit torch goes on uncompiled.
    dynamo.recompile_limit = max(dynamo.recompile_limit, _MOST_SHAPES)
    network.compile_repeated_blocks(dynamic=False, backend=backend)


def _inputs(network: nn.Module, images: int, tokens: int) -> dict[str, Any]:
    """What the network reads, random, the same each time."""
    config: Any = network.config
    like = next(network.parameters())
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        """Unit Gaussian noise, as the weights are."""
        return torch.randn(shape, generator=generator).to(like)

    side = int(config.sample_size)
    given: dict[str, Any] = {
        "sample": drawn(images, config.in_channels, side, side),
        "timestep": torch.full((images,), 500, device=like.device),
        "encoder_hidden_states": drawn(images, tokens, config.cross_attention_dim),
    }
    if config.addition_embed_type == "text_time":
        sizes = SIZE_IDS * config.addition_time_embed_dim
        pooled = config.projection_class_embeddings_input_dim - sizes
        size_ids = torch.full((images, SIZE_IDS), 8 * side, device=like.device)
        given["added_cond_kwargs"] = micro_conditioning(drawn(images, pooled), size_ids)
    return given


def _backward(network: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """The gradient of the text; leaves those of the parameters behind."""
    text = inputs["encoder_hidden_states"].detach().requires_grad_()
    answer = network(**{**inputs, "encoder_hidden_states": text}, return_dict=False)[0].float()
    target = torch.linspace(-1, 1, answer.numel(), device=answer.device).view_as(answer)
    (answer - target).square().mean().backward()
    gradient: Tensor = text.grad
    return gradient


def _gradients(network: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """The gradient of the text and of each parameter that learns, in the type of the weights."""
    found = {_TEXT: _backward(network, inputs)}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found[name], parameter.grad = parameter.grad, None
    return found


def _distances(
    network: nn.Module, inputs: dict[str, Any], plain: dict[str, Tensor]
) -> dict[str, tuple[float, float]]:
    """Norm of each plain gradient and its distance from the one that comes now.

    Both are freed as soon as they are compared, so that no second set of gradients is held; what
    gets none now is as far away as the plain one is long.
    """
    found: dict[str, Tensor] = {}

    def compare(name: str, gradient: Tensor) -> None:
        """Note the distance of one gradient."""
        before = plain.pop(name).float()
        found[name] = torch.stack([before.norm(), (gradient.float() - before).norm()])

    def compared(name: str) -> Callable[[Tensor], None]:
        """What is done with a parameter whose gradient is complete."""

        def compare_and_free(parameter: Tensor) -> None:
            """Note the distance, and leave no gradient behind."""
            assert parameter.grad is not None
            compare(name, parameter.grad)
            parameter.grad = None

        return compare_and_free

    handles = [
        parameter.register_post_accumulate_grad_hook(compared(name))
        for name, parameter in network.named_parameters()
        if name in plain
    ]
    compare(_TEXT, _backward(network, inputs))
    for handle in handles:
        handle.remove()
    network.zero_grad(set_to_none=True)
    lost = {name: gradient.float().norm() for name, gradient in plain.items()}
    found |= {name: torch.stack([norm, norm]) for name, norm in lost.items()}
    rows = torch.stack(list(found.values())).tolist()
    return {name: (norm, apart) for name, (norm, apart) in zip(found, rows, strict=True)}
