"""DyLoRA: every truncation is an adapter, ranks follow from the sample, and cutting pays."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny_unet import tiny_unet
from torch import nn

from hpc.errors import ConfigError
from sarhpc.diffusion.adapter import adapted, add_adapter, unet_targets
from sarhpc.diffusion.config import AdapterConfig
from sarhpc.diffusion.dylora import DynamicRanks, draw_ranks, truncate

CPU = torch.device("cpu")


def adapted_unet(cfg: AdapterConfig) -> UNet2DConditionModel:
    """A small U-Net whose adapter holds something."""
    unet = tiny_unet()
    add_adapter(unet, cfg, unet_targets(cfg), seed=3)
    for parameter in unet.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return unet


def answer(unet: nn.Module, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(count, 4, 4, 4, generator=generator)
    context = torch.randn(count, 16, 16, generator=generator)
    found: torch.Tensor = unet(latents, 10, encoder_hidden_states=context).sample
    return found


# Convolutions and the embedding of time too, whose activations have other shapes.
@pytest.mark.parametrize("targets", [None, ["to_q", "conv1", "conv2", "time_emb_proj"]])
@pytest.mark.parametrize("alpha", [None, 3.0])
def test_each_sample_of_a_batch_uses_the_adapter_truncated_to_its_rank(
    alpha: float | None, targets: list[str] | None
) -> None:
    cfg = AdapterConfig(kind="dylora", rank=4, alpha=alpha, targets=targets)
    unet = adapted_unet(cfg)
    cut = {}
    for rank in (1, 3, 4):
        cut[rank] = copy.deepcopy(unet)
        truncate({"unet": cut[rank]}, cfg, rank)
    with torch.no_grad():
        wanted = [answer(cut[rank])[i] for i, rank in enumerate((3, 1, 4))]
        whole = answer(unet)
        dynamic = DynamicRanks({"unet": unet}, cfg)
        assert torch.equal(answer(unet), whole), "all directions before the first draw"
        dynamic.set_ranks(torch.tensor([3, 1, 4]), CPU)
        found = answer(unet)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(found[0], whole[0], atol=1e-3)
    assert torch.allclose(found[2], whole[2], atol=1e-6)


def test_unused_directions_get_no_gradient() -> None:
    cfg = AdapterConfig(kind="dylora", rank=4)
    unet = adapted_unet(cfg)
    DynamicRanks({"unet": unet}, cfg).set_ranks(torch.tensor([2, 1, 2]), CPU)
    answer(unet).square().mean().backward()
    for _, layer in adapted(unet):
        into, out = layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad
        assert into[:2].abs().sum() > 0
        assert into[2:].abs().sum() == 0
        assert out[:, 2:].abs().sum() == 0


def test_the_rank_of_a_sample_depends_on_seed_epoch_and_sample_only() -> None:
    cfg = AdapterConfig(kind="dylora", rank=12, block=4)
    names = [f"{number:06d}" for number in range(3000)]
    drawn = draw_ranks(cfg, names, [0] * len(names), seed=5)
    again = draw_ranks(cfg, names[::-1], [0] * len(names), seed=5)
    assert torch.equal(drawn, again.flip(0))
    counts = Counter(drawn.tolist())
    assert set(counts) == {4, 8, 12}
    assert min(counts.values()) > 900
    for epochs, seed in (([1] * len(names), 5), ([0] * len(names), 6)):
        assert not torch.equal(drawn, draw_ranks(cfg, names, epochs, seed))


@pytest.mark.slow
def test_a_truncated_dylora_is_better_than_a_truncated_lora() -> None:
    """The change to learn has eight directions; cut to two, plain LoRA has them in no order."""
    errors = {}
    for kind in ("lora", "dylora"):
        cfg = AdapterConfig(kind=kind, rank=8)
        torch.manual_seed(0)
        change = torch.randn(32, 8) @ torch.diag(torch.linspace(2, 0.2, 8)) @ torch.randn(8, 32)
        model = nn.Sequential(nn.Linear(32, 32, bias=False))
        goal = model[0].weight.detach() + change / 32**0.5
        add_adapter(model, cfg, ["0"], seed=1)
        dynamic = DynamicRanks({"model": model}, cfg)
        learnt = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=1e-2, weight_decay=0.0)
        for step in range(600):
            inputs = torch.randn(32, 32)
            if kind == "dylora":
                names = [f"{number}" for number in range(len(inputs))]
                dynamic.set_ranks(draw_ranks(cfg, names, [step] * len(inputs), seed=0), CPU)
            loss = (model(inputs) - inputs @ goal.T).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        dynamic.set_ranks(torch.full((256,), 8), CPU)
        inputs = torch.randn(256, 32)
        whole = (model(inputs) - inputs @ goal.T).square().mean()
        dynamic.set_ranks(torch.full((256,), 2), CPU)
        part = (model(inputs) - inputs @ goal.T).square().mean()
        errors[kind] = (whole.item(), part.item())
    assert errors["dylora"][1] < 0.7 * errors["lora"][1]
    assert errors["lora"][0] < 1e-3
    # The whole adapter pays for it.
    assert errors["lora"][0] < errors["dylora"][0] < errors["dylora"][1]


@pytest.mark.parametrize(
    ("kind", "rank", "says"),
    [("lora", 2, "of kind lora"), ("dylora", 3, r"adapter\.block=2"), ("dylora", 6, "up to")],
)
def test_an_impossible_truncation_is_refused(kind: str, rank: int, says: str) -> None:
    cfg = AdapterConfig(kind=kind, rank=4, block=2)
    with pytest.raises(ConfigError, match=says):
        truncate({"unet": adapted_unet(cfg)}, cfg, rank)


def test_a_block_that_does_not_divide_the_rank_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.block=3 does not divide"):
        adapted_unet(AdapterConfig(kind="dylora", rank=4, block=3))
