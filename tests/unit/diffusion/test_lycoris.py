"""LoHa and LoKr files: named as LyCORIS does, and the update that its formulas give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_unet import tiny_unet

from sarhpc.diffusion.adapter import add_adapter, remove_adapter, unet_targets
from sarhpc.diffusion.adapter_files import places, update_shape
from sarhpc.diffusion.config import AdapterConfig
from sarhpc.diffusion.lycoris import is_lycoris, lycoris_update, lycoris_weights, save_lycoris


@pytest.mark.parametrize("rank", [2, 64], ids=["low rank", "full factors"])
@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_a_saved_adapter_gives_the_update_of_its_training(
    kind: str, rank: int, tmp_path: Path
) -> None:
    cfg = AdapterConfig(kind=kind, rank=rank, alpha=3.0, targets=["to_q", "conv1", "conv_shortcut"])
    unet, plain = tiny_unet(), tiny_unet()
    add_adapter(unet, cfg, unet_targets(cfg), seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    assert is_lycoris(unet)
    file = save_lycoris({"unet": lycoris_weights(unet)}, tmp_path)
    remove_adapter(unet, fold=True)

    tensors = load_file(file)
    before = {name.replace(".", "_"): module for name, module in plain.named_modules()}
    after = {name.replace(".", "_"): module for name, module in unet.named_modules()}
    found = places(tensors, file)
    assert len(found) > 5
    assert any(after[place.module].weight.dim() == 4 for place in found)
    for place, roles in found.items():
        assert all(name.startswith(f"lora_unet_{place.module}.") for name in roles.values())
        own = before[place.module].weight
        update = lycoris_update({role: tensors[name] for role, name in roles.items()})
        shape = update_shape({role: tuple(tensors[name].shape) for role, name in roles.items()})
        assert shape == tuple(own.flatten(1).shape)
        trained = after[place.module].weight
        assert not torch.equal(trained, own)
        assert torch.allclose(own + update.reshape(own.shape), trained, atol=1e-5)


def test_alpha_scales_by_the_rank_and_not_at_all_without_one() -> None:
    factors = {"lokr_w1": torch.ones(2, 2), "lokr_w2_a": torch.ones(3, 4)}
    factors |= {"lokr_w2_b": torch.ones(4, 3), "alpha": torch.tensor(2.0)}
    assert torch.equal(lycoris_update(factors), torch.full((6, 6), 4 * 2 / 4))
    whole = {"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(3, 3), "alpha": torch.tensor(2.0)}
    assert torch.equal(lycoris_update(whole), torch.ones(6, 6))
    del factors["alpha"]
    assert torch.equal(lycoris_update(factors), torch.full((6, 6), 4.0))
    pair = {"down": torch.ones(2, 3), "up": torch.ones(5, 2), "alpha": torch.tensor(1.0)}
    assert torch.equal(lycoris_update(pair), torch.ones(5, 3))
