"""The autoencoder's training lowers what it should, resumes exactly and publishes its floor."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from hpc.errors import DataError, NumericalError
from sarhpc.diffusion import texture
from sarhpc.diffusion.autoencoder import (
    TrainingState,
    crop_size,
    new_autoencoder,
    reconstruct,
    set_scaling_factor,
    train_autoencoder,
    train_step,
)
from sarhpc.diffusion.autoencoder_report import Best, assess, run_autoencoder
from sarhpc.diffusion.bundle import load_autoencoder
from sarhpc.diffusion.config import AutoencoderConfig, AutoencoderShape, TextureWeights
from sarhpc.diffusion.crops import TilePool, as_gray8, as_input, as_rgb8, load_pool

pytestmark = pytest.mark.slow

TINY = AutoencoderConfig(
    shape=AutoencoderShape(block_out_channels=[8, 8, 16, 16], norm_groups=4, sample_size=64),
    steps=60,
    batch=4,
    crop_px=32,
    final_crop_px=64,
    final_fraction=0.1,
    learning_rate=2e-3,
    texture_start=5,
    texture_ramp=10,
    discriminator_start=40,
    warmup=5,
    bfloat16=False,
    save_every=30,
    log_every=20,
)


def _speckle(seed: int, side: int = 96) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    field = rng.normal(size=(side, side)) + 1j * rng.normal(size=(side, side))
    spectrum = np.fft.fft2(field)
    frequency = np.abs(np.fft.fftfreq(side))
    spectrum[frequency > 0.4] = 0
    spectrum[:, frequency > 0.4] = 0
    amplitude = np.abs(np.fft.ifft2(spectrum))
    amplitude[:, : side // 2] *= 0.4
    top = amplitude.mean() + 3 * amplitude.std()
    return np.rint(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def pool() -> TilePool:
    rng = np.random.default_rng(0)
    optical = [
        np.repeat(np.repeat(rng.integers(40, 200, (6, 6, 3), dtype=np.uint8), 16, 0), 16, 1)
        for _ in range(3)
    ]
    return TilePool(optical, [_speckle(seed) for seed in range(3)])


def test_training_lowers_the_loss_and_the_distance_of_spectra(
    pool: TilePool, tmp_path: Path
) -> None:
    cfg = replace(
        TINY,
        weights=TextureWeights(optical_lowpass=0.0, spectrum=0.5),
        batch=2,
        crop_px=64,
        final_fraction=0.0,
        learning_rate=4e-3,
        texture_start=0,
        texture_ramp=1,
        discriminator_start=1000,
        # Little averaging: after so few steps the average still holds the first, blurred decoders.
        ema=0.5,
    )
    _, sar = pool.fixed(4, 64)
    images = torch.stack([as_input(tile) for tile in sar.crops])

    def distance(model: AutoencoderKL) -> float:
        real, fake = texture.amplitude(images), texture.amplitude(reconstruct(model, images))
        level = texture.local_level(real)
        logs = (texture.log_amplitude(amplitude, level) for amplitude in (real, fake))
        return float(texture.spectral_distance(*logs))

    state = TrainingState.new(cfg)
    before = distance(state.average)
    first = train_step(state, pool.batch(0, 0, 2, 64), cfg)
    trained = train_autoencoder(cfg, pool, tmp_path, log=lambda _: None)
    last = train_step(trained, pool.batch(0, 0, 2, 64), cfg)
    assert last["sar_lowpass"] + last["colour"] < 0.8 * (first["sar_lowpass"] + first["colour"])
    assert distance(trained.average) < 0.75 * before


def test_a_resumed_training_equals_an_uninterrupted_one(pool: TilePool, tmp_path: Path) -> None:
    lines: list[str] = []
    cfg = replace(TINY, steps=12, discriminator_start=4, log_every=1)
    whole = train_autoencoder(cfg, pool, tmp_path / "one", log=lines.append)
    train_autoencoder(cfg, pool, tmp_path / "two", log=lines.append, until=7)
    resumed = train_autoencoder(cfg, pool, tmp_path / "two", log=lines.append)
    assert resumed.step == whole.step == 12
    for name in ("model", "average", "discriminator"):
        one, two = (getattr(state, name).state_dict() for state in (whole, resumed))
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert any("adversarial" in line for line in lines)


def test_the_frozen_encoder_is_the_averaged_one_and_the_decoder_still_trains(
    pool: TilePool, tmp_path: Path
) -> None:
    cfg = replace(TINY, steps=8, encoder_steps=4, save_every=4)

    def train(until: int) -> tuple[TrainingState, dict[str, torch.Tensor]]:
        state = train_autoencoder(cfg, pool, tmp_path, log=lambda _: None, until=until)
        return state, {key: value.clone() for key, value in state.average.state_dict().items()}

    _, held = train(4)
    state, final = train(8)
    encoder = [key for key in held if key.startswith(("encoder.", "quant_conv."))]
    assert all(torch.equal(held[key], final[key]) for key in encoder)
    assert all(torch.equal(state.model.state_dict()[key], held[key]) for key in encoder)
    assert any(not torch.equal(held[key], final[key]) for key in held if "decoder" in key)


def test_the_stage_publishes_a_model_with_its_report(pool: TilePool, tmp_path: Path) -> None:
    cfg = replace(TINY, steps=4, final_fraction=0.0)
    path = run_autoencoder(cfg, pool, pool, tmp_path, log=lambda _: None)
    model = load_autoencoder(path)
    report = json.loads((path / "report.json").read_text())
    assert model.config.scaling_factor == pytest.approx(report["scaling_factor"])
    assert report["step"] == 4
    for key in ("enl_mode", "histogram_jsd_bits", "lsd_db", "acf_range_difference", "optical_l1"):
        assert np.isfinite(report[key]), key
    assert "of 3 scenes" in report["nulls"]["E5_lsd"]["reason"], "three images are too few"
    assert (tmp_path / "panel_000004.png").read_bytes().startswith(b"\x89PNG")


def test_latents_have_unit_deviation_after_scaling(pool: TilePool) -> None:
    model = new_autoencoder(TINY.shape, 0)
    images = pool.batch(0, 0, 8, 64)
    factor = set_scaling_factor(model, images)
    generator = torch.Generator().manual_seed(0)
    latents = model.encode(images).latent_dist.sample(generator) * factor
    assert float(latents.detach().std()) == pytest.approx(1, abs=1e-4)
    assert latents.shape == (8, 4, 8, 8), "reduction 8, four channels, as in SD"


def test_a_worse_checkpoint_does_not_replace_the_best(pool: TilePool, tmp_path: Path) -> None:
    cfg = replace(TINY, steps=4, final_fraction=0.0)
    path = run_autoencoder(cfg, pool, pool, tmp_path, log=lambda _: None)
    report = json.loads((path / "report.json").read_text())
    (path / "report.json").write_text(json.dumps({**report, "score": -1.0}))
    weights = (path / "diffusion_pytorch_model.safetensors").read_bytes()
    run_autoencoder(replace(cfg, steps=6), pool, pool, tmp_path, log=lambda _: None)
    assert (path / "diffusion_pytorch_model.safetensors").read_bytes() == weights


def test_a_constant_reconstruction_is_never_the_best(tmp_path: Path) -> None:
    """Early in a training 8 bits may hold one code only, which has no speckle to measure."""
    optical = np.full((64, 64, 3), 90, np.uint8)
    sar = [_speckle(seed) for seed in range(4)]
    lost = assess([optical, *sar], [optical, *sar[:3], np.full((96, 96), 40, np.uint8)])
    assert lost == {"optical_l1": 0, "score": math.inf}
    best = Best(tmp_path)
    assert not best.improved_by(lost)
    kept = assess([optical, *sar], [optical, *sar])
    assert kept["score"] == pytest.approx(0)
    assert best.improved_by(kept)
    calm = np.full((96, 96), 3, np.uint8)
    assert assess([optical, calm, *sar], [optical, calm, *sar]) == kept, "no speckle to compare"


def test_an_autoencoder_without_a_checkpoint_to_publish_says_so(
    pool: TilePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = replace(TINY, steps=1, final_fraction=0.0)
    gray = "sarhpc.diffusion.autoencoder_report.as_gray8"
    monkeypatch.setattr(gray, lambda image: np.full(image.shape[1:], 7, np.uint8))
    with pytest.raises(DataError, match="constant reconstruction"):
        run_autoencoder(cfg, pool, pool, tmp_path, log=lambda _: None)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(pool: TilePool) -> None:
    state = TrainingState.new(TINY)
    before = {key: value.clone() for key, value in state.model.state_dict().items()}
    images = pool.batch(0, 0, 4, 32)
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericalError, match="step 0"):
        train_step(state, images, TINY)
    after = state.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_torn_or_foreign_checkpoint_is_a_data_error(pool: TilePool, tmp_path: Path) -> None:
    train_autoencoder(replace(TINY, steps=2), pool, tmp_path, log=lambda _: None)
    wider = replace(TINY, shape=AutoencoderShape([8, 8, 16, 32], 1, 4))
    with pytest.raises(DataError, match="configuration"):
        train_autoencoder(wider, pool, tmp_path, log=lambda _: None)
    checkpoint = tmp_path / "state.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be loaded"):
        train_autoencoder(TINY, pool, tmp_path, log=lambda _: None)


def test_crops_follow_from_seed_and_step_and_keep_range(pool: TilePool) -> None:
    assert torch.equal(pool.batch(1, 5, 4, 32), pool.batch(1, 5, 4, 32))
    assert not torch.equal(pool.batch(1, 5, 4, 32), pool.batch(1, 6, 4, 32))
    step = np.tile(np.repeat(np.array([10, 200], np.uint8), 32), (64, 1))
    oriented = TilePool(pool.optical, [step])
    for number in range(8):
        sar = oriented.batch(0, number, 2, 64)[1]
        assert sar[:, :, :32].mean() < sar[:, :, 32:].mean(), "near range stays at column 0"


def test_large_crops_come_last() -> None:
    cfg = AutoencoderConfig(steps=100, crop_px=64, final_crop_px=128, final_fraction=0.25)
    assert [crop_size(cfg, step) for step in (0, 74, 75, 99)] == [64, 64, 128, 128]


def test_a_pool_is_read_from_a_folder_and_must_hold_both_kinds(tmp_path: Path) -> None:
    np.save(tmp_path / "a.sar.npy", _speckle(0))
    with pytest.raises(DataError, match="optical"):
        load_pool(tmp_path)
    np.save(tmp_path / "a.optical.npy", np.zeros((96, 96, 3), np.uint8))
    pool = load_pool(tmp_path)
    with pytest.raises(DataError, match="does not fit"):
        pool.batch(0, 0, 2, 128)


def test_images_survive_the_conversion_to_tensors_and_back() -> None:
    gray = _speckle(3)
    assert np.array_equal(as_gray8(as_input(gray)), gray)
    rgb = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(as_rgb8(as_input(rgb)), rgb)
