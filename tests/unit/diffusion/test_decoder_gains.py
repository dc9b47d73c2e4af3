"""A tuned decoder draws the speckle of tiles it has not seen, over three seeds of its tuning.

The autoencoder of the embedded base, and an archive whose sensor fills half the share of the
spectrum of the one that the autoencoder has learnt from. Named before: the metrics are E5
(log-spectral distance, dB) and E4 (speckle autocorrelation, the larger of azimuth and range) of
held-out tiles through the autoencoder, before and after. `pytest -s -m long` on this file prints
the rows of docs/benchmarks.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gains import BASE, SEEDS, make_archive, sure_gain, tiles

from sarhpc.diffusion.bundle import load_autoencoder
from sarhpc.diffusion.config import DecoderConfig
from sarhpc.diffusion.decoder import decoder_report, tune_decoder

pytestmark = [pytest.mark.long, pytest.mark.slow]


def acf(told: dict[str, Any]) -> float:
    return max(told["acf_azimuth_difference"], told["acf_range_difference"])


@pytest.mark.timeout(3600)
def test_a_tuned_decoder_preserves_more_speckle_of_held_out_tiles(tmp_path: Path) -> None:
    run = make_archive(tmp_path / "run", "simulate.band_fraction=0.4")
    learnt, held_out = (list(tiles(run, split).grays()) for split in ("train", "val"))
    groups = tiles(run, "val").scenes()
    base = load_autoencoder(BASE / "vae")
    before, after = [], []
    for seed in SEEDS:
        cfg = DecoderConfig(
            seed=seed, steps=60, batch=4, crop_px=64, report_crops=64, warmup=5, learning_rate=1e-3
        )
        state = tmp_path / f"{seed}.pt"
        tuned = tune_decoder(cfg, base, learnt, state, log=lambda _: None)
        report, _ = decoder_report(cfg, base, tuned, held_out, groups)
        before.append(report["before"])
        after.append(report["after"])
    spectra = ([one["lsd_db"] for one in told] for told in (before, after))
    speckle = ([acf(one) for one in told] for told in (before, after))
    assert sure_gain("decoder: E5 of held-out tiles, dB, before and tuned", *spectra) > 0
    assert sure_gain("decoder: E4 of held-out tiles, before and tuned", *speckle) > 0
