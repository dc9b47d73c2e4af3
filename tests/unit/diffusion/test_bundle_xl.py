"""SDXL beside SD 1.5: one bundle, one folder layout, the published sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray

from hpc.config import load
from hpc.errors import ConfigError, DataError
from sarhpc.diffusion.bundle import Bundle, load_bundle, new_bundle, save_bundle, with_schedule
from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
from sarhpc.diffusion.families.sdxl import SDXL
from sarhpc.diffusion.tokenizer import load_clip_tokenizer, train_clip_tokenizer

BUNDLES = Path(__file__).parents[3] / "configs" / "bundles"

TINY_XL = BundleConfig(
    unet=UNetShape(
        sample_size=4,
        block_out_channels=[8, 16, 16],
        cross_attention=[False, True, True],
        level_heads=[1, 2, 4],
        transformer_layers=[1, 2, 3],
        norm_groups=4,
        size_embedding=8,
    ),
    text=TextShape(hidden=16, layers=2, heads=2, intermediate=32, positions=16),
    text_2=TextShape(24, layers=3, heads=2, intermediate=32, positions=16, activation="gelu"),
    vae=AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=32),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("tokenizer") / "clip"
    tokenizer = train_clip_tokenizer(["a forest near a river"] * 2, 530, folder)
    return new_bundle(TINY_XL, tokenizer, seed=1)


@pytest.fixture(scope="module")
def saved(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "bundle"
    save_bundle(bundle, path)
    return path


def draw(pipeline: StableDiffusionXLPipeline) -> NDArray[np.float32]:
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        "a forest near a river",
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images
    return np.asarray(images)


def test_the_stock_xl_pipeline_draws_the_same_image_from_the_folder(
    bundle: Bundle, saved: Path
) -> None:
    loaded = StableDiffusionXLPipeline.from_pretrained(saved, local_files_only=True)
    image = draw(loaded)
    assert image.shape == (1, 32, 32, 3)
    # Where a loaded weight lies in memory may change the last bit of a sum.
    np.testing.assert_allclose(image, draw(bundle.pipeline()), atol=1e-6)


def test_an_xl_bundle_comes_back_as_it_was(bundle: Bundle, saved: Path) -> None:
    loaded = load_bundle(saved)
    assert loaded.family is SDXL
    assert list(loaded.models) == ["unet", "text_encoder", "text_encoder_2"]
    assert len(loaded.tokenizers) == 2
    again = {**loaded.models, "vae": loaded.vae}
    for name, model in {**bundle.models, "vae": bundle.vae}.items():
        before, after = model.state_dict(), again[name].state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name
        assert not again[name].training
    assert loaded.tokenizers[1].model_max_length == 16
    assert loaded.tile_px == 32


def test_half_precision_holds_for_every_part_of_xl(saved: Path, tmp_path: Path) -> None:
    save_bundle(load_bundle(saved), tmp_path / "half", torch.bfloat16)
    loaded = load_bundle(tmp_path / "half", torch.bfloat16)
    assert {model.dtype for model in loaded.models.values()} == {torch.bfloat16}


def test_an_absent_negative_prompt_is_the_empty_caption_that_training_drops_to(
    saved: Path,
) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(saved, local_files_only=True)
    _, absent, _, pooled_absent = pipeline.encode_prompt("a forest", device="cpu")
    empty, _, pooled_empty, _ = pipeline.encode_prompt("", device="cpu")
    torch.testing.assert_close(absent, empty)
    torch.testing.assert_close(pooled_absent, pooled_empty)


def test_another_schedule_keeps_both_encoders(bundle: Bundle) -> None:
    changed = with_schedule(bundle, "v_prediction", zero_terminal_snr=True)
    assert changed.encoders[1] is bundle.encoders[1]
    assert changed.tokenizers[1] is bundle.tokenizers[1]


@pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer_2"])
def test_a_missing_second_encoder_is_a_data_error(saved: Path, tmp_path: Path, part: str) -> None:
    damaged = Path(shutil.copytree(saved, tmp_path / "damaged"))
    shutil.rmtree(damaged / part)
    with pytest.raises(DataError, match=part):
        load_bundle(damaged)


def test_a_second_tokenizer_of_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(saved, tmp_path / "damaged"))
    shutil.rmtree(damaged / "tokenizer_2")
    captions = [f"word{letter} grows" for letter in "abcdefghijklmnop"] * 3
    train_clip_tokenizer(captions, 600, damaged / "tokenizer_2")
    with pytest.raises(DataError, match=r"tokenizer_2 has \d+ tokens"):
        load_bundle(damaged)


def test_depths_that_do_not_match_the_levels_are_refused(bundle: Bundle) -> None:
    wrong = BundleConfig(UNetShape(transformer_layers=[1, 2]), TINY_XL.text, TINY_XL.vae)
    with pytest.raises(ConfigError, match="transformer_layers has 2 entries for 3 levels"):
        new_bundle(wrong, bundle.tokenizers[0])


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("sd15", {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}),
        (
            "sdxl",
            {
                "unet": 2_567_463_684,
                "text_encoder": 123_060_480,
                "text_encoder_2": 694_659_840,
                "vae": 83_653_863,
            },
        ),
    ],
)
def test_full_size_bundles_have_the_published_parameter_counts(
    name: str, published: dict[str, int], test_data: Path
) -> None:
    cfg = load(BundleConfig, BUNDLES / f"{name}.yaml", [])
    tokenizer = load_clip_tokenizer(test_data / "tokenizers" / "sd1_clip_hf")
    with torch.device("meta"):
        bundle = new_bundle(cfg, tokenizer)
    counts = {
        part: sum(p.numel() for p in module.parameters())
        for part, module in {**bundle.models, "vae": bundle.vae}.items()
    }
    assert counts == published
    assert bundle.tile_px == {"sd15": 512, "sdxl": 1024}[name]
    assert bundle.scheduler.alphas_cumprod.device.type == "cpu"


def test_heads_and_depths_are_those_of_their_levels(bundle: Bundle) -> None:
    attentions = [
        (blocks[0].attn1.heads, len(blocks))
        for level in bundle.backbone.down_blocks[1:]
        for blocks in [level.attentions[0].transformer_blocks]
    ]
    assert attentions == [(2, 2), (4, 3)]


def test_the_folder_of_an_xl_bundle_says_what_it_is(saved: Path) -> None:
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    assert index["force_zeros_for_empty_prompt"] is False
    unet = json.loads((saved / "unet" / "config.json").read_text())
    assert unet["addition_embed_type"] == "text_time"
    assert unet["projection_class_embeddings_input_dim"] == 24 + 6 * 8
    assert unet["cross_attention_dim"] == 16 + 24
