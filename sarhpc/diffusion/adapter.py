"""Low-rank adapters: added to a model, merged into its weights, or removed and saved separately.

An adapter adds to a frozen weight W an update of few parameters: B A for LoRA (Hu et al., 2021; on
convolutions too it is called LoCon), the Hadamard product of two such products for LoHa, a
Kronecker product for LoKr (Yeh et al., 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from hpc.errors import ConfigError
from sarhpc.diffusion.config import ADAPTER_KINDS, LORA_FILE, AdapterConfig
from sarhpc.diffusion.families.registry import is_text_encoder

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
"""Modules of the U-Net's transformer blocks."""
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj")
"""Modules of its residual blocks and of its up- and downsamplers."""
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Modules of a CLIP text encoder's layers."""

ADAPTER_NAME = "default"


def unet_targets(cfg: AdapterConfig) -> list[str]:
    """Suffixes of the U-Net's modules that get an adapter."""
    if cfg.targets is not None:
        return list(cfg.targets)
    return [*ATTENTION, *CONVOLUTIONS] if cfg.kind == "locon" else list(ATTENTION)


def add_adapter(model: nn.Module, cfg: AdapterConfig, targets: list[str], seed: int) -> None:
    """Freeze `model` and add a new adapter to `targets`; untrained it has no effect.

    The same seed gives the same adapter, whatever was drawn before.

    Raises:
        ConfigError: an unknown kind, a rank below 1, or a target that names no module.
    """
    _require_targets(model, targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_peft_config(cfg, targets), model, adapter_name=ADAPTER_NAME)


def _require_targets(model: nn.Module, targets: list[str]) -> None:
    names = [name for name, _ in model.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ConfigError(
                f"adapter target {target!r} matches no module of {type(model).__name__}; "
                f"give suffixes of its modules' names, such as {', '.join(ATTENTION[:4])}"
            )


def _peft_config(cfg: AdapterConfig, targets: list[str]) -> Any:
    if cfg.rank < 1:
        raise ConfigError(f"adapter.rank={cfg.rank} must be >= 1")
    if cfg.block < 1 or cfg.rank % cfg.block:
        raise ConfigError(
            f"adapter.block={cfg.block} does not divide adapter.rank={cfg.rank}: ranks are drawn "
            "in multiples of it"
        )
    alpha = cfg.rank if cfg.alpha is None else cfg.alpha
    if cfg.kind in ("lora", "locon", "dylora"):
        return LoraConfig(r=cfg.rank, lora_alpha=alpha, target_modules=targets)
    if cfg.kind == "loha":
        return LoHaConfig(r=cfg.rank, alpha=alpha, target_modules=targets)
    if cfg.kind == "lokr":
        return LoKrConfig(r=cfg.rank, alpha=alpha, target_modules=targets)
    raise ConfigError(f"adapter.kind={cfg.kind!r}: use one of {', '.join(ADAPTER_KINDS)}")


def adapted(model: nn.Module) -> Iterator[tuple[str, BaseTunerLayer]]:
    """Yield the adapted modules of `model` with the names their plain modules had."""
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module


def is_low_rank(model: nn.Module) -> bool:
    """Whether only LoRA layers, which diffusers can load, are trainable in `model`."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    layers = dict(adapted(model))
    loadable = all(isinstance(layer, LoraLayer) for layer in layers.values())
    return loadable and all("lora_" in name for name in names)


def low_rank_weights(model: nn.Module) -> dict[str, Tensor]:
    """A and B of every LoRA layer by module name, the scale alpha / rank multiplied into B.

    Readers then apply the right scale whether or not they support an alpha unlike the rank.
    """
    weights = {}
    for name, layer in adapted(model):
        assert isinstance(layer, LoraLayer)
        weights[f"{name}.lora_A.weight"] = layer.lora_A[ADAPTER_NAME].weight.detach().clone()
        scaled = layer.lora_B[ADAPTER_NAME].weight.detach() * layer.scaling[ADAPTER_NAME]
        weights[f"{name}.lora_B.weight"] = scaled
    return weights


@torch.no_grad()
def remove_adapter(model: nn.Module, *, fold: bool) -> None:
    """Restore the plain modules of `model`, with the adapter merged into the weights or dropped."""
    for name, layer in list(adapted(model)):
        if fold:
            layer.merge()
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def save_low_rank(parts: dict[str, dict[str, Tensor]], folder: Path) -> Path:
    """Write the weights of each part (`unet`, `text_encoder`) as diffusers' adapter file."""
    named = {}
    for part, weights in parts.items():
        # Published adapters include the name of the encoder's inner model; readers accept both.
        for name, tensor in weights.items():
            nested = is_text_encoder(part) and not name.startswith("text_model.")
            named[f"{part}.text_model.{name}" if nested else f"{part}.{name}"] = tensor.contiguous()
    save_file(named, folder / LORA_FILE, metadata={"format": "pt"})
    return folder / LORA_FILE
