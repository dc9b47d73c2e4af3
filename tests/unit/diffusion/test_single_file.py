"""A checkpoint in one file, in the original layout, is the bundle it was made of.

Nothing at hand writes that layout in small shapes, so the names below are written down from the
published checkpoints; the import itself goes through diffusers' converters, which do not know them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpc.errors import DataError
from sarhpc.diffusion.bundle import Bundle, load_autoencoder, load_bundle, new_bundle, save_bundle
from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
from sarhpc.diffusion.skeleton import skeleton_of
from sarhpc.diffusion.tokenizer import train_clip_tokenizer
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.start import load_base
from sarhpc.training.estimate.operations import estimate_flops

TEXT = TextShape(hidden=16, layers=2, heads=2, intermediate=32, positions=16)
VAE = AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=32, mid_attention=True)
SD = BundleConfig(
    unet=UNetShape(4, [8, 16], [True, False], 2, attention_heads=2, norm_groups=4),
    text=TEXT,
    vae=VAE,
)
XL = BundleConfig(
    unet=UNetShape(
        4,
        [8, 16],
        [False, True],
        2,
        level_heads=[1, 2],
        transformer_layers=[1, 2],
        norm_groups=4,
        size_embedding=8,
    ),
    text=TEXT,
    text_2=TextShape(24, layers=2, heads=2, intermediate=32, positions=16, activation="gelu"),
    vae=VAE,
)

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def renamed(name: str, names: Mapping[str, str]) -> str:
    for new, old in names.items():
        name = name.replace(new, old)
    return name


def original_unet(unet: Any) -> dict[str, Tensor]:
    layers = int(unet.config.layers_per_block) + 1
    looks = [bool(getattr(block, "attentions", None)) for block in unet.up_blocks]

    def place(name: str) -> str:
        found = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
        if found is None:
            return renamed(name, OUTER)
        way, block, kind, layer, rest = found.groups()
        if way == "down":
            number = (
                1 + int(block) * layers + (layers - 1 if kind == "downsamplers" else int(layer))
            )
            where = f"input_blocks.{number}"
        else:
            number = int(block) * layers + (layers - 1 if kind == "upsamplers" else int(layer))
            where = f"output_blocks.{number}"
        slot = {"resnets": "0", "attentions": "1", "downsamplers": "0"}.get(kind)
        if kind == "upsamplers":
            slot = "2" if looks[int(block)] else "1"
        if kind == "downsamplers":
            rest = rest.replace("conv", "op")
        return f"{where}.{slot}.{rest}"

    def inner(name: str) -> str:
        return renamed(name, RESNET) if "attentions" not in name else name

    return {
        f"model.diffusion_model.{place(inner(name))}": tensor
        for name, tensor in unet.state_dict().items()
    }


def original_vae(vae: Any) -> dict[str, Tensor]:
    levels = len(vae.config.block_out_channels)
    out = {}
    for name, value in vae.state_dict().items():
        tensor, old = value, name.replace("conv_norm_out", "norm_out")
        old = old.replace("conv_shortcut", "nin_shortcut")
        old = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", old)
        old = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", old)
        old = re.sub(
            r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", old
        )
        old = re.sub(
            r"up_blocks\.(\d+)\.upsamplers\.0",
            lambda m: f"up.{levels - 1 - int(m[1])}.upsample",
            old,
        )
        old = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", old)
        if "mid_block.attentions.0" in old:
            old = renamed(old.replace("mid_block.attentions.0", "mid.attn_1"), ATTENTION)
            if tensor.ndim == 2:  # convolutions of one pixel at that time
                tensor = tensor[:, :, None, None]
        out[f"first_stage_model.{old}"] = tensor
    return out


def original_clip(encoder: Any, prefix: str) -> dict[str, Tensor]:
    weights = encoder.state_dict().items()
    return {f"{prefix}text_model.{n.removeprefix('text_model.')}": t for n, t in weights}


def original_open_clip(encoder: Any) -> dict[str, Tensor]:
    prefix, state = "conditioner.embedders.1.model.", encoder.state_dict()
    out = {f"{prefix}text_projection": state.pop("text_projection.weight").T.contiguous()}
    layers = sorted({name.split(".self_attn.")[0] for name in state if ".self_attn." in name})
    for layer in layers:
        for kind in ("weight", "bias"):
            three = [state.pop(f"{layer}.self_attn.{one}_proj.{kind}") for one in "qkv"]
            out[prefix + renamed(f"{layer}.attn.in_proj_{kind}", OPEN_CLIP)] = torch.cat(three)
    return out | {prefix + renamed(name, OPEN_CLIP): tensor for name, tensor in state.items()}


def write_single_file(bundle: Bundle, folder: Path, file: Path) -> None:
    """The weights of `bundle` in one file, and `folder` without its weights beside it."""
    weights = {**original_unet(bundle.backbone), **original_vae(bundle.vae)}
    if len(bundle.encoders) == 2:
        weights |= original_clip(bundle.encoders[0], "conditioner.embedders.0.transformer.")
        weights |= original_open_clip(bundle.encoders[1])
    else:
        weights |= original_clip(bundle.encoders[0], "cond_stage_model.transformer.")
    save_file({name: tensor.clone() for name, tensor in weights.items()}, file)
    shutil.copytree(folder, file.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))


@pytest.fixture(scope="module", params=["sd", "xl"])
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in one file; the folder with all of the bundle is `whole` beside it."""
    root = tmp_path_factory.mktemp(str(request.param))
    tokenizer = train_clip_tokenizer(["a forest near a river"] * 2, 530, root / "tokenizer")
    shapes = SD if request.param == "sd" else XL
    bundle = new_bundle(shapes, tokenizer, seed=1)
    save_bundle(bundle, root / "whole")
    write_single_file(bundle, root / "whole", root / "model.safetensors")
    return root / "model.safetensors"


@pytest.fixture
def copied(given: Path, tmp_path: Path) -> Path:
    file = tmp_path / given.name
    shutil.copy(given, file)
    shutil.copytree(given.with_suffix(""), file.with_suffix(""))
    return file


def test_every_weight_is_that_of_the_folder(given: Path) -> None:
    whole, found = load_bundle(given.parent / "whole"), load_bundle(given)
    assert found.family is whole.family
    for part, model in {**whole.models, "vae": whole.vae}.items():
        other = found.vae if part == "vae" else found.models[part]
        wanted, got = model.state_dict(), other.state_dict()
        assert wanted.keys() == got.keys()
        assert all(torch.equal(wanted[name], got[name]) for name in wanted), part
        assert not other.training
    assert found.tokenizers[0].model_max_length == 16
    assert found.scheduler.config == whole.scheduler.config


def test_autoencoder_and_shapes_are_read_of_the_file_too(given: Path) -> None:
    whole = load_bundle(given.parent / "whole")
    vae = load_autoencoder(given)
    assert all(
        torch.equal(a, b) for a, b in zip(vae.parameters(), whole.vae.parameters(), strict=True)
    )
    counted = skeleton_of(given)
    assert {n: m.num_parameters() for n, m in counted.models.items()} == {
        n: m.num_parameters() for n, m in whole.models.items()
    }


@pytest.mark.slow
def test_a_training_starts_from_it(given: Path) -> None:
    cfg = TrainConfig(lr_text_encoder=0.0)
    base = load_base(cfg, given)
    learning = {n for n, m in base.models.items() if any(p.requires_grad for p in m.parameters())}
    assert learning == {"unet"}
    assert estimate_flops(cfg, given, 32).parameters == sum(
        model.num_parameters() for model in base.models.values()
    )


def test_half_precision_files_are_loaded_in_the_requested_dtype(copied: Path) -> None:
    save_file({name: t.half() for name, t in load_file(copied).items()}, copied)
    assert {p.dtype for p in load_bundle(copied).backbone.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("model.diffusion_model.", "has no U-Net"),
        ("first_stage_model.", "has no autoencoder"),
        ("co", "has no text encoder"),
    ],
)
def test_a_part_that_is_missing_is_named(copied: Path, part: str, says: str) -> None:
    weights = load_file(copied)
    save_file({n: t for n, t in weights.items() if not n.startswith(part)}, copied)
    with pytest.raises(DataError, match=says):
        load_bundle(copied)


def test_a_weight_that_is_missing_is_named(copied: Path) -> None:
    weights = load_file(copied)
    del weights["first_stage_model.decoder.conv_out.bias"]
    save_file(weights, copied)
    with pytest.raises(DataError, match=r"vae.*differ in 1 weights.*decoder\.conv_out\.bias"):
        load_bundle(copied)


def test_without_its_configuration_the_file_says_what_to_put_where(copied: Path) -> None:
    shutil.rmtree(copied.with_suffix(""))
    with pytest.raises(DataError, match=r"only weights.*model_index\.json.*tokenizer"):
        load_bundle(copied)


def test_the_configuration_of_another_model_is_refused(copied: Path) -> None:
    config = copied.with_suffix("") / "unet" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "layers_per_block": 1}))
    with pytest.raises(DataError, match="configuration of its own kind"):
        load_bundle(copied)


def test_a_torn_file_is_refused(copied: Path) -> None:
    copied.write_bytes(copied.read_bytes()[:-50])
    with pytest.raises(DataError, match="cannot be read"):
        load_bundle(copied)
