"""A decoder that is tuned draws speckle closer to the tiles; the encoder keeps every bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from hpc.errors import ConfigError, DataError, NumericalError
from sarhpc.cli import main
from sarhpc.diffusion.autoencoder import new_autoencoder
from sarhpc.diffusion.bundle import load_autoencoder, load_bundle
from sarhpc.diffusion.config import AutoencoderShape, DecoderConfig
from sarhpc.diffusion.crops import sar_batch
from sarhpc.diffusion.decoder import DecoderTuning, decoder_report, tune_decoder, tuning_step
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard

EMBEDDED = Path(__file__).resolve().parents[3] / "sarhpc" / "embedded" / "base"
SHAPE = AutoencoderShape([8, 8, 16, 16], norm_groups=4, sample_size=64)
TINY = DecoderConfig(steps=6, batch=2, crop_px=64, report_crops=4, warmup=2, log_every=1)


def speckle(seed: int, band: float, side: int = 96) -> NDArray[np.uint8]:
    """Single-look speckle (side, side) of a sensor that fills `band` of the spectrum's half."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.normal(size=(side, side)) + 1j * rng.normal(size=(side, side)))
    outside = np.abs(np.fft.fftfreq(side)) > band
    spectrum[outside] = 0
    spectrum[:, outside] = 0
    amplitude = np.abs(np.fft.ifft2(spectrum))
    amplitude[:, : side // 2] *= 0.4
    top = amplitude.mean() + 3 * amplitude.std()
    return np.rint(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)


TILES = [speckle(seed, 0.15) for seed in range(6)]
HELD_OUT = [speckle(seed, 0.15) for seed in range(10, 14)]


@pytest.fixture(scope="module")
def base() -> AutoencoderKL:
    return new_autoencoder(SHAPE, 0).eval()


def changed(one: AutoencoderKL, other: AutoencoderKL) -> set[str]:
    """First words of the names of the weights that differ."""
    pairs = zip(one.named_parameters(), other.parameters(), strict=True)
    return {name.partition(".")[0] for (name, a), b in pairs if not torch.equal(a, b)}


def test_only_the_decoder_is_trained(base: AutoencoderKL, tmp_path: Path) -> None:
    tuned = tune_decoder(TINY, base, TILES, tmp_path / "state.pt", log=lambda _: None)
    assert changed(tuned, base) == {"decoder", "post_quant_conv"}


@pytest.mark.slow
def test_a_resumed_tuning_equals_an_uninterrupted_one(base: AutoencoderKL, tmp_path: Path) -> None:
    said: list[str] = []
    whole = tune_decoder(TINY, base, TILES, tmp_path / "one.pt", log=said.append)
    tune_decoder(TINY, base, TILES, tmp_path / "two.pt", log=said.append, until=3)
    resumed = tune_decoder(TINY, base, TILES, tmp_path / "two.pt", log=said.append)
    assert changed(whole, resumed) == set()
    assert len(said) == 2 * TINY.steps


def test_a_state_of_another_configuration_or_a_torn_one_is_refused(
    base: AutoencoderKL, tmp_path: Path
) -> None:
    state = tmp_path / "state.pt"
    tune_decoder(TINY, base, TILES, state, log=lambda _: None, until=1)
    with pytest.raises(ConfigError, match="another configuration"):
        tune_decoder(replace(TINY, seed=1), base, TILES, state, log=lambda _: None)
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(DataError, match="remove it"):
        tune_decoder(TINY, base, TILES, state, log=lambda _: None)


def test_a_non_finite_loss_changes_no_weight(base: AutoencoderKL) -> None:
    state = DecoderTuning.new(TINY, base)
    images = sar_batch(TILES, 0, 0, 2, 64)
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(NumericalError, match="step 0"):
        tuning_step(state, images, TINY)
    assert changed(state.model, base) == set()


@pytest.mark.slow
def test_speckle_of_another_sensor_is_drawn_better_afterwards(tmp_path: Path) -> None:
    base = load_autoencoder(EMBEDDED / "vae")
    cfg = replace(TINY, steps=40, batch=4, report_crops=16, learning_rate=1e-3, warmup=5)
    tuned = tune_decoder(cfg, base, TILES, tmp_path / "state.pt", log=lambda _: None)
    held_out = [speckle(seed, 0.15) for seed in range(10, 26)]
    report, (real, old, new) = decoder_report(cfg, base, tuned, held_out, range(16))
    before, after = report["before"], report["after"]
    for measure in ("lsd_db", "acf_azimuth_difference", "acf_range_difference"):
        assert after[measure] < 0.5 * before[measure], measure
    judged = {name: one["E5_lsd"] for name, one in report["nulls"].items()}
    assert judged["before"]["raw"] > judged["before"]["null_95"]
    assert judged["after"]["log_ratio"] < judged["before"]["log_ratio"] - 0.5
    assert len(real) == len(old) == len(new) == 16
    assert np.abs(np.mean(new) - np.mean(real)) < 8


def write_tiles(root: Path, split: str, tiles: list[NDArray[np.uint8]], shard: int) -> None:
    samples = []
    for index, tile in enumerate(tiles):
        key = sample_key(shard, index)
        members = {"sar.png": encode_gray8(tile), "meta.json": encode_json({"key": key})}
        samples.append(Sample(key, members))
    write_shard(root / split / f"{shard:06d}.tar", samples)


@pytest.mark.slow
def test_the_verb_publishes_a_base_model_and_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles, out = tmp_path / "samples", tmp_path / "tuned"
    write_tiles(tiles, "train", TILES[:2], 0)
    words = ["decoder", str(EMBEDDED), "--tiles", str(tiles), "--out", str(out)]
    words += ["steps=1", "batch=1", "crop_px=64", "report_crops=2"]
    assert main(words) != 0
    assert "val or test" in capsys.readouterr().err
    write_tiles(tiles, "val", HELD_OUT[:2], 1)
    assert main(words) == 0
    reported = capsys.readouterr().out
    assert "E5 log-spectral distance, dB" in reported
    assert "no null: the real tiles are of 1 scenes" in reported, "these tiles name no scene"
    report = json.loads((out / "report.json").read_text())
    assert report["nulls"]["after"]["E5_lsd"].keys() == {"raw", "reason"}
    assert report["before"]["lsd_db"] != report["after"]["lsd_db"]
    assert (out / "panel.png").stat().st_size > 0
    tuned, base = load_bundle(out / "model"), load_bundle(EMBEDDED)
    assert changed(tuned.vae, base.vae) == {"decoder", "post_quant_conv"}
    pairs = zip(tuned.backbone.parameters(), base.backbone.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
