"""A saved bundle is a diffusers folder that draws the same images; a damaged one is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from transformers import CLIPTextModel

from hpc.errors import ConfigError, DataError, HpcError
from sarhpc.diffusion.bundle import (
    Bundle,
    load_autoencoder,
    load_bundle,
    new_bundle,
    save_bundle,
    with_schedule,
)
from sarhpc.diffusion.config import (
    AutoencoderShape,
    BundleConfig,
    SchedulerShape,
    TextShape,
    UNetShape,
)
from sarhpc.diffusion.tokenizer import load_clip_tokenizer, train_clip_tokenizer

TINY = BundleConfig(
    unet=UNetShape(
        sample_size=8,
        block_out_channels=[16, 32],
        cross_attention=[True, False],
        attention_heads=2,
        norm_groups=8,
    ),
    text=TextShape(hidden=32, layers=1, heads=2, intermediate=32, positions=24),
    vae=AutoencoderShape(block_out_channels=[8, 8, 8, 16], norm_groups=4, sample_size=64),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("tokenizer") / "clip"
    tokenizer = train_clip_tokenizer(["a forest near a river"] * 2, 530, folder)
    return new_bundle(TINY, tokenizer, seed=1)


@pytest.fixture(scope="module")
def saved(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "bundle"
    save_bundle(bundle, path)
    return path


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "damaged"))


def _draw(pipeline: StableDiffusionPipeline) -> NDArray[np.float32]:
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        "a forest near a river",
        negative_prompt="town",
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images
    return np.asarray(images)


def test_the_stock_pipeline_draws_the_same_image_from_the_folder(
    bundle: Bundle, saved: Path
) -> None:
    loaded = StableDiffusionPipeline.from_pretrained(saved, local_files_only=True)
    image = _draw(loaded)
    assert image.shape == (1, 64, 64, 3)
    assert np.array_equal(image, _draw(bundle.pipeline()))
    assert loaded.safety_checker is None
    assert loaded.feature_extractor is None


def test_a_bundle_comes_back_as_it_was(bundle: Bundle, saved: Path) -> None:
    loaded = load_bundle(saved)
    assert list(loaded.models) == ["unet", "text_encoder"]
    again = {**loaded.models, "vae": loaded.vae}
    for name, model in {**bundle.models, "vae": bundle.vae}.items():
        before, after = model.state_dict(), again[name].state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name
        assert not again[name].training
    assert loaded.tile_px == 64
    assert np.array_equal(_draw(loaded.pipeline()), _draw(bundle.pipeline()))


def test_saving_twice_gives_the_same_bytes_from_wherever_it_was_loaded(
    saved: Path, tmp_path: Path
) -> None:
    save_bundle(load_bundle(saved), tmp_path / "again")
    files = sorted(path.relative_to(saved) for path in saved.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "again")
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    )
    weights_and_configs = [f for f in files if f.suffix == ".safetensors" or "config" in f.name]
    for file in weights_and_configs:
        if "tokenizer" not in file.parts:
            assert (saved / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_only_safetensors_readable_by_all_are_written(saved: Path) -> None:
    weights = [
        path for path in saved.rglob("*") if path.stat().st_size > 1 and "model" in path.name
    ]
    assert {p.suffix for p in weights if p.is_file()} == {".safetensors", ".json"}
    assert all(p.stat().st_mode & 0o044 for p in saved.rglob("*.safetensors"))


def test_half_precision_halves_the_file_and_leaves_the_bundle_alone(
    bundle: Bundle, saved: Path, tmp_path: Path
) -> None:
    save_bundle(bundle, tmp_path / "half", torch.float16)
    assert bundle.backbone.dtype == torch.float32
    unet = Path("unet/diffusion_pytorch_model.safetensors")
    ratio = (tmp_path / "half" / unet).stat().st_size / (saved / unet).stat().st_size
    assert 0.5 <= ratio < 0.6
    loaded = load_bundle(tmp_path / "half")
    assert loaded.backbone.dtype == loaded.vae.dtype == loaded.encoders[0].dtype == torch.float32
    difference = np.abs(_draw(loaded.pipeline()) - _draw(bundle.pipeline()))
    assert difference.max() < 0.02


def test_a_trained_autoencoder_is_used_unchanged(bundle: Bundle) -> None:
    taken = new_bundle(TINY, bundle.tokenizers[0], vae=bundle.vae)
    assert taken.vae is bundle.vae


def test_the_same_seed_gives_the_same_bundle_and_leaves_the_global_state(bundle: Bundle) -> None:
    state = torch.random.get_rng_state()
    again, other = (new_bundle(TINY, bundle.tokenizers[0], seed=seed) for seed in (1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(again.backbone.conv_in.weight, bundle.backbone.conv_in.weight)
    assert not torch.equal(other.backbone.conv_in.weight, bundle.backbone.conv_in.weight)


def test_the_text_encoder_pools_at_the_end_marker_of_this_tokenizer(bundle: Bundle) -> None:
    ids = bundle.tokenizers[0]("a river", padding="max_length", return_tensors="pt").input_ids
    output = bundle.encoders[0](ids)
    end = ids[0].tolist().index(bundle.tokenizers[0].eos_token_id)
    torch.testing.assert_close(output.pooler_output[0], output.last_hidden_state[0, end])


def test_prompts_are_padded_to_what_the_text_encoder_reads(bundle: Bundle, test_data: Path) -> None:
    real = load_clip_tokenizer(test_data / "tokenizers" / "sd1_clip_hf")
    assert real.model_max_length > 77, "the trap this test is about: the file says 8192"
    cfg = BundleConfig(unet=TINY.unet, text=TextShape(hidden=32, layers=1, heads=2), vae=TINY.vae)
    taken = new_bundle(cfg, real)
    ids = taken.tokenizers[0]("a cat", padding="max_length", truncation=True).input_ids
    assert len(ids) == 77
    assert real.model_max_length > 77, "the tokenizer that was given is not changed"


def test_zero_terminal_snr_needs_velocity(bundle: Bundle) -> None:
    wrong = BundleConfig(TINY.unet, TINY.text, TINY.vae, SchedulerShape(zero_terminal_snr=True))
    with pytest.raises(ConfigError, match="v_prediction"):
        new_bundle(wrong, bundle.tokenizers[0])
    right = SchedulerShape(prediction_type="v_prediction", zero_terminal_snr=True)
    scheduler = new_bundle(
        BundleConfig(TINY.unet, TINY.text, TINY.vae, right), bundle.tokenizers[0]
    ).scheduler
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6


def test_another_schedule_leaves_the_weights_unchanged(bundle: Bundle) -> None:
    changed = with_schedule(bundle, "v_prediction", zero_terminal_snr=True)
    assert changed.scheduler.config.prediction_type == "v_prediction"
    assert changed.scheduler.config.timestep_spacing == "trailing"
    assert float(changed.scheduler.alphas_cumprod[-1]) < 1e-6
    assert changed.backbone is bundle.backbone
    assert changed.encoders[0] is bundle.encoders[0]
    assert with_schedule(bundle, None) is bundle
    with pytest.raises(ConfigError, match="v_prediction"):
        with_schedule(bundle, None, zero_terminal_snr=True)


def test_a_new_schedule_survives_saving(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(with_schedule(bundle, "v_prediction", zero_terminal_snr=True), tmp_path / "model")
    scheduler = load_bundle(tmp_path / "model").scheduler
    assert scheduler.config.prediction_type == "v_prediction"
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6


def test_levels_that_do_not_match_are_a_configuration_error(bundle: Bundle) -> None:
    wrong = BundleConfig(UNetShape(block_out_channels=[32, 32]), TINY.text, TINY.vae)
    with pytest.raises(ConfigError, match="cross_attention"):
        new_bundle(wrong, bundle.tokenizers[0])
    uneven = UNetShape(block_out_channels=[30, 32, 32], norm_groups=8)
    with pytest.raises(ConfigError, match="fit together"):
        new_bundle(BundleConfig(uneven, TINY.text, TINY.vae), bundle.tokenizers[0])


UNET = "unet/diffusion_pytorch_model.safetensors"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _drop_weights(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path)


def _widen(path: Path) -> None:
    config = json.loads(path.read_text())
    config["block_out_channels"] = [2 * width for width in config["block_out_channels"]]
    path.write_text(json.dumps(config))


def _rename_class(path: Path) -> None:
    path.write_text(path.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))


def _unknown_scheduler(path: Path) -> None:
    path.write_text(path.read_text().replace("DDIMScheduler", "UNet2DModel"))


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("model_index.json", Path.unlink),
        ("model_index.json", _cut),
        ("model_index.json", _rename_class),
        ("model_index.json", _unknown_scheduler),
        ("unet", shutil.rmtree),
        ("vae", shutil.rmtree),
        ("text_encoder", shutil.rmtree),
        ("tokenizer", shutil.rmtree),
        ("scheduler", shutil.rmtree),
        (UNET, Path.unlink),
        (UNET, _cut),
        (UNET, _drop_weights),
        ("unet/config.json", _widen),
        ("unet/config.json", _cut),
        ("vae/diffusion_pytorch_model.safetensors", _cut),
        ("vae/diffusion_pytorch_model.safetensors", _drop_weights),
        ("text_encoder/model.safetensors", _cut),
        ("text_encoder/model.safetensors", _drop_weights),
        ("text_encoder/config.json", _cut),
        ("tokenizer/tokenizer.json", _cut),
        ("scheduler/scheduler_config.json", _cut),
    ],
)
def test_a_damaged_folder_is_a_data_error(
    damaged: Path, file: str, harm: Callable[[Path], None]
) -> None:
    harm(damaged / file)
    with pytest.raises(DataError):
        load_bundle(damaged)


def test_pickled_weights_are_never_opened(damaged: Path) -> None:
    (damaged / UNET).unlink()
    (damaged / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(DataError, match="safetensors"):
        load_bundle(damaged)


def test_a_tokenizer_of_another_model_is_refused(damaged: Path, tmp_path: Path) -> None:
    captions = [f"word{letter} grows" for letter in "abcdefghijklmnop"] * 3
    shutil.rmtree(damaged / "tokenizer")
    train_clip_tokenizer(captions, 600, damaged / "tokenizer")
    with pytest.raises(DataError, match="different models"):
        load_bundle(damaged)


def test_a_failed_save_leaves_the_old_bundle(
    bundle: Bundle, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (damaged / UNET).read_bytes()
    monkeypatch.setenv("SARHPC_FAULT", "publish.directory_before_rename:1:raise")
    monkeypatch.setattr("hpc.publish._passages", {})
    with pytest.raises(HpcError, match="fault injected"):
        save_bundle(bundle, damaged, torch.float16)
    assert (damaged / UNET).read_bytes() == before
    assert not list(damaged.parent.glob(".*.tmp"))


def test_the_embedded_shapes_are_within_the_budget(bundle: Bundle) -> None:
    embedded = new_bundle(BundleConfig(), bundle.tokenizers[0])
    sizes = {
        name: sum(parameter.numel() for parameter in model.parameters())
        for name, model in {**embedded.models, "vae": embedded.vae}.items()
    }
    assert isinstance(embedded.backbone, UNet2DConditionModel)
    assert isinstance(embedded.encoders[0], CLIPTextModel)
    assert isinstance(embedded.vae, AutoencoderKL)
    assert embedded.tile_px == 128
    # Two bundles of two bytes a weight, with room for the captioner under 60 MB.
    assert 2 * 2 * sum(sizes.values()) < 50e6, sizes


def test_an_autoencoder_alone_is_loaded_from_its_folder(saved: Path, tmp_path: Path) -> None:
    assert load_autoencoder(saved / "vae").config.latent_channels == 4
    with pytest.raises(DataError, match="missing"):
        load_autoencoder(tmp_path / "nowhere")


def test_variants_are_saved_and_loaded_by_name(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "variants"
    save_bundle(bundle, folder, variants=["fp16", "bf16"])
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    plain = {name: p.detach() for name, p in load_bundle(folder).backbone.named_parameters()}
    assert {weight.dtype for weight in plain.values()} == {torch.float32}
    for variant, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, variant=variant, torch_dtype=dtype, local_files_only=True, safety_checker=None
        )
        parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
        assert {p.dtype for part in parts for p in part.parameters()} == {dtype}
        for name, weight in pipeline.unet.named_parameters():
            assert torch.equal(weight, plain[name].to(dtype)), name
    sizes = {p.name: p.stat().st_size for p in (folder / "unet").glob("*.safetensors")}
    whole = sizes["diffusion_pytorch_model.safetensors"]
    assert sizes["diffusion_pytorch_model.fp16.safetensors"] < 0.6 * whole
    assert bundle.backbone.dtype == torch.float32
