"""A compiled U-Net is used only if its gradients are those of the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hpc.errors import NumericalError
from sarhpc.diffusion.architecture import new_unet
from sarhpc.diffusion.config import BundleConfig, TextShape, UNetShape
from sarhpc.training.compilation import compile_network

pytestmark = pytest.mark.slow

TEXT = TextShape(hidden=16, layers=2, heads=2, intermediate=32, positions=16)


def unet(*, xl: bool = False) -> Any:
    levels: dict[str, Any] = {"level_heads": [1, 2], "size_embedding": 8} if xl else {}
    shape = UNetShape(4, [8, 16], [not xl, xl], attention_heads=2, norm_groups=4, **levels)
    second = TextShape(24, layers=2, heads=2, intermediate=32, positions=16) if xl else None
    torch.manual_seed(0)
    return new_unet(BundleConfig(unet=shape, text=TEXT, text_2=second)).train()


def faithful(graph: Any, _inputs: Any) -> Any:
    """A compiler that leaves everything as it is."""
    return graph.forward


def careless(graph: Any, _inputs: Any) -> Any:
    """A compiler whose answers are right and whose gradients are twice as large."""

    def run(*inputs: Any) -> Any:
        outputs = graph.forward(*inputs)
        return [o + (o - o.detach()) if o.is_floating_point() else o for o in outputs]

    return run


@pytest.mark.parametrize("xl", [False, True], ids=["sd", "xl"])
def test_right_gradients_are_taken_and_names_stay(xl: bool) -> None:
    network = unet(xl=xl)
    names = [name for name, _ in network.named_parameters()]
    compile_network(network, 2, 16, backend=faithful)
    assert [name for name, _ in network.named_parameters()] == names
    assert all(parameter.grad is None for parameter in network.parameters())


def test_wrong_gradients_are_refused_and_named() -> None:
    with pytest.raises(NumericalError, match=r"off by 100%; leave train\.compile out"):
        compile_network(unet(), 2, 16, backend=careless)


@pytest.mark.parametrize("xl", [False, True], ids=["sd", "xl"])
def test_step_of_the_training_meets_what_was_compiled(xl: bool) -> None:
    compiled = 0

    def counting(graph: Any, _inputs: Any) -> Any:
        """A compiler that counts what it is asked for."""
        nonlocal compiled
        compiled += 1
        return graph.forward

    network = unet(xl=xl)
    torch._dynamo.reset()
    compile_network(network, 2, 77, backend=counting)
    blocks = [m for m in network.modules() if type(m).__name__ == "BasicTransformerBlock"]
    assert 0 < compiled <= len(blocks)
    before = compiled
    given: dict[str, Any] = {}
    if xl:
        ids = torch.tensor([[32, 32, 0, 0, 32, 32]] * 2)
        width = network.config.projection_class_embeddings_input_dim - 6 * 8
        given["added_cond_kwargs"] = {"text_embeds": torch.randn(2, width), "time_ids": ids}
    text = torch.randn(2, 77, network.config.cross_attention_dim, requires_grad=True)
    network(torch.randn(2, 4, 4, 4), torch.tensor([3, 900]), text, **given).sample.sum().backward()
    assert compiled == before, "another length of text or type of size ids is compiled again"


def test_comparison_holds_one_set_of_gradients() -> None:
    network = unet()
    held: list[int] = []
    hooks = [
        parameter.register_post_accumulate_grad_hook(
            lambda _: held.append(sum(p.grad is not None for p in network.parameters()))
        )
        for parameter in network.parameters()
    ]
    compile_network(network, 2, 16, backend=faithful)
    for hook in hooks:
        hook.remove()
    compared = held[len(held) // 2 :]
    assert max(compared) <= 1, "a compiled gradient goes as soon as it is compared"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_blocks_that_torch_compiles_have_the_gradients_of_the_plain_ones() -> None:
    # The whole U-Net, compiled for a CPU, lost some of them.
    compile_network(unet(), 2, 16)
