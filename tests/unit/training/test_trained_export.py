"""What an adapter and a learned token become: files that diffusers' own loaders read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from tiny_bundle import make_bundle, paint

from hpc.errors import ConfigError
from sarhpc.diffusion.bundle import Bundle, load_bundle, save_bundle
from sarhpc.diffusion.conditioning import size_ids, tokenize
from sarhpc.diffusion.config import (
    LORA_FILE,
    LYCORIS_FILE,
    AdapterConfig,
    TokenConfig,
)
from sarhpc.diffusion.learned_token import EMBEDDING_FILE
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.model import load_pipeline
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.model import Denoiser, trainable_groups
from sarhpc.training.denoising.start import load_base
from sarhpc.training.export import export_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    made: dict[bool, Path] = {}

    def base(xl: bool) -> Path:
        if xl not in made:
            made[xl] = make_bundle(tmp_path_factory.mktemp("base"), xl=xl)
        return made[xl]

    return base


def trained(cfg: TrainConfig, base: Path) -> tuple[Bundle, dict[str, torch.Tensor]]:
    """The bundle as a training would leave it, and the weights a checkpoint would hold."""
    bundle = load_base(cfg, base)
    model = Denoiser(bundle.family, bundle.models)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter += torch.randn(parameter.shape, generator=generator) * 0.3
            weights[name] = parameter.detach().clone()
    return bundle, weights


def load(folder: Path) -> Any:
    options = (
        {"add_watermarker": False} if "XL" in (folder / "model_index.json").read_text() else {}
    )
    return DiffusionPipeline.from_pretrained(folder, local_files_only=True, **options)


Images = NDArray[np.floating[Any]]


def weight_files(folder: Path, *parts: str) -> dict[str, bytes]:
    files = [path for part in parts for path in (folder / part).iterdir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def beside_the_base(base: Path, tmp_path: Path, kind: str) -> tuple[Images, Images, Path]:
    """Images of the base and of the trained model, and the export, with the base's bytes."""
    cfg = TrainConfig(adapter=AdapterConfig(kind=kind, rank=2, alpha=4.0))
    bundle, weights = trained(cfg, base)
    before, wanted = paint(load(base)), paint(bundle.pipeline())
    folder = export_weights(weights, load_base(cfg, base), tmp_path / "model", {})
    names = ("unet", "text_encoder", "vae", "text_encoder_2")
    parts = [name for name in names if (base / name).is_dir()]
    assert weight_files(folder, *parts) == weight_files(base, *parts)
    return before, wanted, folder


@pytest.mark.parametrize(("kind", "xl"), [("lora", False), ("locon", False), ("lora", True)])
def test_an_adapter_leaves_the_base_bytes_and_loads_beside_them(
    bases: Callable[[bool], Path], tmp_path: Path, kind: str, xl: bool
) -> None:
    before, wanted, folder = beside_the_base(bases(xl), tmp_path, kind)
    pipeline = load(folder)
    assert np.array_equal(paint(pipeline), before)
    pipeline.load_lora_weights(folder)
    on = paint(pipeline)
    assert np.abs(wanted - before).max() > 0.02
    assert np.allclose(on, wanted, atol=2e-3)
    for part in ("unet", "text_encoder", *(["text_encoder_2"] if xl else [])):
        assert any("lora_" in name for name, _ in getattr(pipeline, part).named_parameters()), part
    card = (folder / "README.md").read_text()
    assert LORA_FILE in card
    assert "load_lora_weights" in card


@pytest.mark.parametrize(
    "adapter",
    [
        AdapterConfig(rank=2, unet=False),
        AdapterConfig(kind="loha", rank=2, unet=False),
    ],
    ids=["lora", "loha"],
)
def test_an_adapter_beside_a_model_trained_in_full_is_folded_and_the_card_says_so(
    bases: Callable[[bool], Path], tmp_path: Path, adapter: AdapterConfig
) -> None:
    cfg = TrainConfig(adapter=adapter)
    bundle, weights = trained(cfg, bases(False))
    wanted = paint(bundle.pipeline())
    folder = export_weights(weights, load_base(cfg, bases(False)), tmp_path / "model", {})

    assert not (folder / LORA_FILE).exists()
    assert "in the weights" in (folder / "README.md").read_text()
    assert np.abs(wanted - paint(load(bases(False)))).max() > 0.01
    assert np.allclose(paint(load(folder)), wanted, atol=2e-3)


@pytest.mark.parametrize(("kind", "xl"), [("loha", False), ("lokr", False), ("lokr", True)])
def test_loha_and_lokr_leave_the_base_bytes_and_are_put_on_at_generation(
    bases: Callable[[bool], Path], tmp_path: Path, kind: str, xl: bool
) -> None:
    base = bases(xl)
    before, wanted, folder = beside_the_base(base, tmp_path, kind)
    assert not (folder / LORA_FILE).exists()
    off, on = (paint(painter(folder, weight)) for weight in (0.0, 1.0))
    assert np.abs(wanted - before).max() > 0.01
    assert np.array_equal(off, paint(painter(base, 1.0)))
    assert np.allclose(on, wanted, atol=2e-3)
    card = (folder / "README.md").read_text()
    assert LYCORIS_FILE in card
    assert "sarhpc.load_model" in card


def painter(folder: Path, weight: float) -> Any:
    """The pipeline that generates from a folder, with its own adapter at a weight."""
    cfg = GenerateConfig(adapter_weight=weight)
    pipeline = load_pipeline(folder, cfg, "cpu")
    # As the stock pipeline samples, which the images of the training are from.
    pipeline.scheduler = load(folder).scheduler
    return pipeline


def test_a_token_alone_is_one_row_and_loads_as_a_textual_inversion(
    bases: Callable[[bool], Path], tmp_path: Path
) -> None:
    base = bases(False)
    cfg = TrainConfig(token=TokenConfig(initializer="radar"), lr_unet=0.0, lr_text_encoder=0.0)
    start = load_base(cfg, base)
    groups = trainable_groups(Denoiser(start.family, start.models))
    assert {name: [tuple(p.shape) for p in found] for name, found in groups.items()} == {
        "token": [(16,)]
    }
    table = load(base).text_encoder.get_input_embeddings().weight
    ids = start.tokenizers[0]("radar", add_special_tokens=False).input_ids
    assert torch.allclose(groups["token"][0], table[ids].mean(0))

    prompt = "<SAR> image of a forest"
    bundle, weights = trained(cfg, base)
    wanted = paint(bundle.pipeline(), prompt)
    folder = export_weights(weights, load_base(cfg, base), tmp_path / "model", {})

    assert np.abs(wanted - paint(start.pipeline(), prompt)).max() > 1e-3
    assert np.allclose(paint(load(folder), prompt), wanted, atol=1e-4)
    inverted = load(base)
    inverted.load_textual_inversion(folder / EMBEDDING_FILE)
    assert np.allclose(paint(inverted, prompt), wanted, atol=1e-4)
    # Nothing but the new rows moved.
    grown = load(folder).text_encoder.get_input_embeddings().weight
    assert torch.equal(grown[: len(table)], table)
    assert len(grown) == len(table) + 1
    assert weight_files(folder, "unet", "vae") == weight_files(base, "unet", "vae")
    assert "<SAR>" in (folder / "README.md").read_text()


def test_sdxl_learns_the_token_in_both_encoders(
    bases: Callable[[bool], Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    cfg = TrainConfig(token=TokenConfig(), adapter=AdapterConfig(rank=2))
    bundle, weights = trained(cfg, bases(True))
    wanted = paint(bundle.pipeline(), "<SAR> image")
    folder = export_weights(weights, load_base(cfg, bases(True)), tmp_path / "model", {})

    rows = load_file(folder / EMBEDDING_FILE)
    assert {name: tuple(tensor.shape) for name, tensor in rows.items()} == {
        "clip_l": (1, 16),
        "clip_g": (1, 24),
    }
    pipeline = load(folder)
    pipeline.load_lora_weights(folder)
    assert np.allclose(paint(pipeline, "<SAR> image"), wanted, atol=2e-3)
    inverted = load(bases(True))
    for name, which in (("clip_l", ""), ("clip_g", "_2")):
        inverted.load_textual_inversion(
            {"<SAR>": rows[name]},
            text_encoder=getattr(inverted, f"text_encoder{which}"),
            tokenizer=getattr(inverted, f"tokenizer{which}"),
        )
    inverted.load_lora_weights(folder)
    assert np.allclose(paint(inverted, "<SAR> image"), wanted, atol=2e-3)


def test_words_behind_the_token_reach_the_pooled_embedding_of_published_encoders(
    bases: Callable[[bool], Path], tmp_path: Path
) -> None:
    base = load_bundle(bases(True))
    base.encoders[1].config.eos_token_id = 2  # as in the published SDXL
    save_bundle(base, tmp_path / "published")
    cfg = TrainConfig(token=TokenConfig(), lr_unet=0.0, lr_text_encoder=0.0)
    start = load_base(cfg, tmp_path / "published")
    _, weights = trained(cfg, tmp_path / "published")
    exported = load_bundle(export_weights(weights, start, tmp_path / "model", {}))

    for bundle in (load_base(cfg, tmp_path / "published"), exported):
        ids = [tokenize(t, ["<SAR> forest", "<SAR> lake"]) for t in bundle.tokenizers]
        conditions = [*ids, size_ids(2, 32, 32)]
        _, added = bundle.family.condition(bundle.encoders, conditions)
        assert added is not None
        pooled = added["text_embeds"]
        assert (pooled[0] - pooled[1]).abs().max() > 1e-3


def test_settings_that_teach_nothing_are_refused(bases: Callable[[bool], Path]) -> None:
    base = bases(False)
    with pytest.raises(ConfigError, match="nothing would learn"):
        load_base(TrainConfig(lr_unet=0.0, lr_text_encoder=0.0), base)
    with pytest.raises(ConfigError, match="is already in the vocabulary"):
        load_base(TrainConfig(token=TokenConfig(text="a</w>")), base)
    with pytest.raises(ConfigError, match=r"token\.initializer is empty"):
        load_base(TrainConfig(token=TokenConfig(initializer="")), base)
