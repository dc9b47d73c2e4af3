"""What adapter files change: their tensors by part of the model, module and role.

Read are the names of diffusers and peft (`unet.down_blocks.0...to_q.lora_A.weight`), the older ones
of diffusers (`...processor.to_q_lora.down.weight`), and those of kohya and LyCORIS
(`lora_unet_down_blocks_0..._to_q.hada_w1_a`), in which every dot of a module is an underscore.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import DataError
from sarhpc.diffusion.families.registry import is_text_encoder
from sarhpc.diffusion.tensor_headers import Shape, tensor_shapes

_FLAT = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
"""Prefix of the flat names -> part of the model."""
_PARTS = ("unet", "text_encoder", "text_encoder_2")
_ORIGINAL = re.compile(r"(input_blocks|middle_block|output_blocks|encoder_layers|time_embed)_?")
"""How modules begin in the original layout of checkpoints, which diffusers converts by itself."""
_LORA = {
    "lora_A.weight": "down", "lora_B.weight": "up", "lora.down.weight": "down",
    "lora.up.weight": "up", "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up", "lora_down.weight": "down", "lora_up.weight": "up",
    "alpha": "alpha",
}  # fmt: skip
"""Last part of a name -> role of the tensor in a LoRA."""
_PROCESSOR = re.compile(r"(.*)\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight")


@dataclass(frozen=True)
class Place:
    """A module that an adapter changes: part of the model, and its name with underscores."""

    part: str
    module: str


def places(names: Iterable[str], where: Path) -> dict[Place, dict[str, str]]:
    """The modules that an adapter changes -> role of each of their tensors -> its name.

    Raises:
        DataError: a name is of no layout that is read.
    """
    found: dict[Place, dict[str, str]] = {}
    for name in names:
        place, role = _place(name, where)
        found.setdefault(place, {})[role] = name
    return found


def is_original(place: Place) -> bool:
    """Whether a module is named as in single-file checkpoints, to be converted by diffusers."""
    return place.part == "unet" and _ORIGINAL.match(place.module) is not None


def module_key(part: str, module: str) -> str:
    """Name by which a module of a part is found, whichever layout names it."""
    inner = module.removeprefix("text_model.") if is_text_encoder(part) else module
    return inner.replace(".", "_")


def model_modules(folder: Path, part: str) -> Mapping[str, Shape]:
    """Shape of the weights of each module of a part of the diffusers folder, by `module_key`.

    Raises:
        DataError: a file of weights is damaged.
    """
    return {
        module_key(part, name.removesuffix(".weight")): shape
        for file in sorted((folder / part).glob("*.safetensors"))
        for name, shape in tensor_shapes(file).items()
        if name.endswith(".weight")
    }


def update_shape(tensors: Mapping[str, Shape]) -> tuple[int, int] | None:
    """Outputs and inputs of the update that the tensors of a module make; None if not known.

    Args:
        tensors: shapes by role.
    """

    def outer(first: str, second: str, whole: str = "") -> tuple[int, int] | None:
        """Of a product, or of the whole in its place."""
        if whole in tensors:
            return tensors[whole][0], math.prod(tensors[whole][1:])
        if first in tensors and second in tensors:
            return tensors[first][0], math.prod(tensors[second][1:])
        return None

    if "lokr_w1" in tensors or "lokr_w1_a" in tensors:
        one = outer("lokr_w1_a", "lokr_w1_b", "lokr_w1")
        other = outer("lokr_w2_a", "lokr_w2_b", "lokr_w2")
        return None if one is None or other is None else (one[0] * other[0], one[1] * other[1])
    if "hada_w1_a" in tensors:
        return outer("hada_w1_a", "hada_w1_b")
    return outer("up", "down")


def _place(name: str, where: Path) -> tuple[Place, str]:
    for prefix, part in _FLAT.items():
        if name.startswith(prefix):
            module, _, leaf = name.removeprefix(prefix).partition(".")
            inner = module.removeprefix("text_model_") if is_text_encoder(part) else module
            return Place(part, inner), _LORA.get(leaf, leaf)
    part, _, rest = name.partition(".")
    if part in _PARTS:
        if match := _PROCESSOR.fullmatch(rest):
            target = "to_out.0" if match[2] == "to_out" else match[2]
            return Place(part, module_key(part, f"{match[1]}.{target}")), match[3]
        for leaf, role in _LORA.items():
            if rest.endswith(f".{leaf}"):
                return Place(part, module_key(part, rest.removesuffix(f".{leaf}"))), role
        module, _, leaf = rest.rpartition(".")
        if leaf.startswith(("hada_", "lokr_")):
            return Place(part, module_key(part, module)), leaf
    raise DataError(
        f"{where} is no adapter that can be read: it has {name!r}. LoRA files of diffusers, peft "
        "and kohya are, and LoHa and LoKr files of LyCORIS."
    )
