"""LoHa and LoKr adapters in files of LyCORIS, written from a training and merged into a model.

Of a module with weights W (outputs x inputs) a file holds the factors of an update: `hada_w1_a
hada_w1_b` and `hada_w2_a hada_w2_b`, whose products are multiplied element by element (LoHa);
`lokr_w1` and `lokr_w2`, each whole or as a product `_a _b`, whose Kronecker product is taken
(LoKr); `lora_down` and `lora_up` (LoRA). The update is scaled by `alpha` over the rank; without an
`alpha`, or without factors of a rank, it is taken as it is (Yeh et al., arXiv:2309.14859).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.loha.layer import LoHaLayer
from peft.tuners.lokr.layer import LoKrLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpc.errors import DataError
from sarhpc.diffusion.adapter import ADAPTER_NAME, adapted
from sarhpc.diffusion.adapter_files import module_key, places
from sarhpc.diffusion.config import LYCORIS_FILE
from sarhpc.diffusion.families.registry import is_text_encoder
from sarhpc.diffusion.tensor_headers import tensor_shapes

_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
_READ = {*_LOHA, *_LOKR, "down", "up", "alpha"}


def is_lycoris(model: nn.Module) -> bool:
    """Whether only LoHa and LoKr layers are trainable in `model`."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    layers = all(isinstance(layer, LoHaLayer | LoKrLayer) for _, layer in adapted(model))
    return layers and all("hada_" in name or "lokr_" in name for name in names)


def lycoris_weights(model: nn.Module) -> dict[str, Tensor]:
    """The factors of every LoHa and LoKr layer by module name, the scale multiplied into the first.

    Readers then apply the right scale whether or not they know `alpha`.
    """
    weights = {}
    for name, layer in adapted(model):
        factors = [part for part in (*_LOHA, *_LOKR) if ADAPTER_NAME in getattr(layer, part, {})]
        for part in factors:
            factor = getattr(layer, part)[ADAPTER_NAME].detach()
            scale = layer.scaling[ADAPTER_NAME] if part == factors[0] else 1.0
            weights[f"{name}.{part}"] = factor * scale
    return weights


def save_lycoris(parts: Mapping[str, Mapping[str, Tensor]], folder: Path) -> Path:
    """Write the weights of each part (`unet`, `text_encoder`) as LyCORIS names them."""
    named = {}
    for part, weights in parts.items():
        for name, tensor in weights.items():
            module, _, factor = name.rpartition(".")
            inner = f"text_model_{module_key(part, module)}" if is_text_encoder(part) else module
            flat = f"{_prefix(part, parts)}{inner.replace('.', '_')}"
            named[f"{flat}.{factor}"] = tensor.contiguous()
            # LyCORIS reads no module without one, and ignores it where there is no rank.
            alpha = named.setdefault(f"{flat}.alpha", torch.tensor(1.0))
            if factor.endswith("_b"):
                alpha.fill_(tensor.shape[0])
    save_file(named, folder / LYCORIS_FILE, metadata={"format": "pt"})
    return folder / LYCORIS_FILE


def _prefix(part: str, parts: Mapping[str, Any]) -> str:
    if not is_text_encoder(part):
        return f"lora_{part}_"
    if part == "text_encoder" and "text_encoder_2" not in parts:
        return "lora_te_"
    return "lora_te1_" if part == "text_encoder" else "lora_te2_"


def is_lycoris_file(file: Path) -> bool:
    """Whether an adapter file holds factors of LoHa or LoKr.

    Raises:
        DataError: it is damaged.
    """
    return any(".hada_" in name or ".lokr_" in name for name in tensor_shapes(file))


@torch.no_grad()
def merge_lycoris(pipeline: Any, file: Path, weight: float) -> None:
    """Add the updates in `file`, times `weight`, to the weights of `pipeline`.

    Raises:
        DataError: a module is not in the pipeline, or its update is of a kind that is not read.
    """
    tensors = load_file(file)
    modules: dict[str, dict[str, nn.Module]] = {}
    for place, roles in places(tensors, file).items():
        if place.part not in modules:
            modules[place.part] = _modules(getattr(pipeline, place.part, None), place.part)
        module = modules[place.part].get(place.module)
        unread = sorted(set(roles) - _READ)
        if module is None or unread:
            what = f"has {unread[0]}, which is not read" if unread else "is not in the model"
            raise DataError(f"{place.part} {place.module} {what}")
        own: Any = module.weight
        update = lycoris_update({role: tensors[name].float() for role, name in roles.items()})
        own += (weight * update).reshape(own.shape).to(own)


def _modules(model: nn.Module | None, part: str) -> dict[str, nn.Module]:
    named = () if model is None else model.named_modules()
    return {module_key(part, n): m for n, m in named if getattr(m, "weight", None) is not None}


def lycoris_update(factors: Mapping[str, Tensor]) -> Tensor:
    """The update of a module's weights, from its factors by role, with its scale."""
    if "hada_w1_a" in factors:
        first, second, third, fourth = (factors[name] for name in _LOHA)
        return (first @ second) * (third @ fourth) * _scale(factors, second)
    if "up" in factors:
        up, down = factors["up"], factors["down"]
        return up.flatten(1) @ down.flatten(1) * _scale(factors, down)
    one, other = _whole(factors, "lokr_w1"), _whole(factors, "lokr_w2")
    low = factors.get("lokr_w2_b", factors.get("lokr_w1_b"))
    while one.dim() < other.dim():
        one = one.unsqueeze(-1)
    return torch.kron(one, other.contiguous()) * _scale(factors, low)


def _whole(factors: Mapping[str, Tensor], name: str) -> Tensor:
    if name in factors:
        return factors[name]
    return factors[f"{name}_a"] @ factors[f"{name}_b"]


def _scale(factors: Mapping[str, Tensor], low: Tensor | None) -> float:
    """Alpha over the rank, the rows of a factor; 1 without either."""
    if low is None or "alpha" not in factors:
        return 1.0
    return float(factors["alpha"]) / low.shape[0]
