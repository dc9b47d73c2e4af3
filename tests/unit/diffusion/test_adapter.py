"""Low-rank adapters: they start as nothing, fold exactly, and fit the full-size model."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny_unet import tiny_unet
from torch import nn

from hpc.errors import ConfigError
from sarhpc.diffusion.adapter import (
    adapted,
    add_adapter,
    is_low_rank,
    remove_adapter,
    unet_targets,
)
from sarhpc.diffusion.config import ADAPTER_KINDS, AdapterConfig

SD15 = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}


def answer(unet: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 4, 4, generator=generator)
    context = torch.randn(1, 16, 16, generator=generator)
    with torch.no_grad():
        found: torch.Tensor = unet(latents, 10, encoder_hidden_states=context).sample
    return found


def put_on(unet: nn.Module, kind: str, rank: int = 4, alpha: float | None = 2.0) -> None:
    cfg = AdapterConfig(kind=kind, rank=rank, alpha=alpha)
    add_adapter(unet, cfg, unet_targets(cfg), seed=3)


def shake(unet: nn.Module) -> None:
    """Give the adapter weights as a training would."""
    generator = torch.Generator().manual_seed(5)
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_an_adapter_starts_without_effect_merges_to_tolerance_and_is_removed_exactly(
    kind: str,
) -> None:
    plain = tiny_unet()
    before, names = answer(plain), [name for name, _ in plain.named_parameters()]

    folded = tiny_unet()
    put_on(folded, kind)
    assert torch.allclose(answer(folded), before, atol=1e-6)
    shake(folded)
    changed = answer(folded)
    assert not torch.allclose(changed, before, atol=1e-2)
    remove_adapter(folded, fold=True)
    assert torch.allclose(answer(folded), changed, atol=1e-4)

    off = tiny_unet()
    put_on(off, kind)
    shake(off)
    remove_adapter(off, fold=False)
    assert torch.equal(answer(off), before)
    for unet in (folded, off):
        assert [name for name, _ in unet.named_parameters()] == names
        assert not hasattr(unet, "peft_config")


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_only_the_adapter_is_trainable_and_only_the_seed_determines_it(kind: str) -> None:
    one, two = tiny_unet(), tiny_unet()
    put_on(one, kind)
    torch.rand(7)
    put_on(two, kind)
    own = {name for name, _ in tiny_unet().named_parameters()}
    for (name, parameter), other in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(parameter, other)
        assert parameter.requires_grad == (name.replace(".base_layer", "") not in own)
    assert is_low_rank(one) == (kind in ("lora", "locon", "dylora"))


def test_locon_adapts_convolutions_of_the_residual_blocks_too() -> None:
    counts = {}
    for kind in ("lora", "locon"):
        unet = tiny_unet()
        put_on(unet, kind)
        layers = [layer.get_base_layer() for _, layer in adapted(unet)]
        counts[kind] = sum(
            isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) for layer in layers
        )
    assert counts["lora"] == 0
    assert counts["locon"] >= 10


def test_rank_256_fits_the_full_size_unet_and_counts_as_the_formula_says() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    cfg = AdapterConfig(rank=256)
    add_adapter(unet, cfg, unet_targets(cfg), seed=0)

    expected = 0
    for _, layer in adapted(unet):
        inner = layer.get_base_layer()
        rows, columns = inner.weight.shape[:2]
        expected += 256 * (rows + columns)
    learnt = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    assert learnt == expected
    assert len(list(adapted(unet))) == 16 * 12  # transformer blocks x adapted weights of each
    assert 100e6 < learnt < 300e6
    assert all(p.is_meta for p in unet.parameters())


def test_wrong_settings_name_the_ones_that_work() -> None:
    with pytest.raises(ConfigError, match="one of lora, locon, loha, lokr"):
        put_on(tiny_unet(), "dora")
    with pytest.raises(ConfigError, match=r"adapter\.rank=0 must be >= 1"):
        put_on(tiny_unet(), "lora", rank=0)
    cfg = AdapterConfig(targets=["to_q", "to_z"])
    with pytest.raises(ConfigError, match="'to_z' matches no module of UNet2DConditionModel"):
        add_adapter(tiny_unet(), cfg, unet_targets(cfg), seed=0)
