"""Each method of training beats what it starts from, over three seeds, by the metric it names.

On the embedded base, which knows optical views alone, and tiles of the procedural archive. The
metric is the error of the denoiser on held-out tiles under draws that are the same for all: what
the training minimises, on tiles it has not seen. `pytest -s -m long` on this file prints the table
of docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gain_methods import FULL, METHODS, WHOLE, together, trained
from gains import BASE, SEEDS, Tiles, sure_gain, tiles
from numpy.typing import NDArray
from training_ranks import tiny_config

from hpc.store.rundir import RunDir
from sarhpc.diffusion.bundle import Bundle
from sarhpc.diffusion.conditioning import tokenize
from sarhpc.diffusion.config import LAYERS, ObjectiveConfig
from sarhpc.diffusion.dylora import truncate
from sarhpc.diffusion.objective import add_noise, draw, loss_per_sample
from sarhpc.stages.inputs.prompts import sample_shards
from sarhpc.training.config import PriorConfig
from sarhpc.training.denoising.model import Denoiser
from sarhpc.training.denoising.start import load_base

pytestmark = [pytest.mark.long, pytest.mark.slow]

HELD_OUT, DRAWS = 64, 2
OPTICAL = "An aerial view of the ground"


@torch.no_grad()
def errors(
    bundle: Bundle,
    held_out: Tiles,
    *,
    member: str = "sar.png",
    caption: str | None = None,
    layer: str | None = None,
) -> NDArray[np.float64]:
    """Error of the denoiser on each held-out tile under each of the fixed draws."""
    model, found = Denoiser(bundle.family, bundle.models).eval(), []
    for start in range(0, HELD_OUT, 16):
        numbers = range(start, start + 16)
        loaded = [held_out.load(number, member) for number in numbers]
        images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in loaded])
        ids = tokenize(bundle.tokenizers[0], [caption or text for _, text in loaded])
        latents = bundle.vae.encode(images).latent_dist.mean * bundle.vae.config.scaling_factor
        steering = {} if layer is None else {"layer": layers(held_out, numbers, layer)}
        for epoch in range(DRAWS):
            names = [held_out.key(number) for number in numbers]
            shape = tuple(latents.shape[1:])
            none = ObjectiveConfig(0.0, None, 0.0)
            choices = draw(names, seed=99, epoch=epoch, shape=shape, cfg=none)
            noisy = add_noise(bundle.scheduler, latents, choices)
            answer = model(noisy, choices.timesteps, ids, **steering)
            found.append(loss_per_sample(bundle.scheduler, answer, latents, choices, none))
    return torch.cat(found).double().numpy()


def layers(held_out: Tiles, numbers: Sequence[int], layer: str) -> torch.Tensor:
    loaded = [held_out.load(number, LAYERS[layer])[0] for number in numbers]
    return torch.stack([torch.from_numpy((one + 1) / 2).permute(2, 0, 1) for one in loaded])


@pytest.fixture(scope="module")
def base_error(gains_run: RunDir) -> float:
    return float(errors(load_base(tiny_config(), BASE), tiles(gains_run, "val")).mean())


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", together(*WHOLE))
def test_a_method_learns_radar_tiles_that_it_has_not_seen(
    gains_run: RunDir, base_error: float, method: str
) -> None:
    found, cut = [], []
    for seed in SEEDS:
        changes = METHODS[method]
        bundle = trained(gains_run, method, seed, changes)
        found.append(errors(bundle, tiles(gains_run, "val")).mean())
        if method == "dylora":
            truncate(bundle.models, changes["adapter"], 2)
            cut.append(errors(bundle, tiles(gains_run, "val")).mean())
    before = [base_error] * 3
    assert sure_gain(f"{method}: held-out error, base and trained", before, found) > 0
    assert not cut or sure_gain(f"{method} cut from 8 to 2 directions", before, cut) > 0


@pytest.mark.timeout(3600)
def test_a_token_learns_what_its_word_did_not_say(gains_run: RunDir) -> None:
    held_out = tiles(gains_run, "val", "<SAR> image of")
    untrained = load_base(tiny_config(**METHODS["token"]), BASE)
    before = float(errors(untrained, held_out).mean())
    after = [
        errors(trained(gains_run, "token", seed, METHODS["token"]), held_out).mean()
        for seed in SEEDS
    ]
    what = "token alone: held-out error, its first embedding and learnt"
    assert sure_gain(what, [before] * 3, after) > 0


@pytest.mark.timeout(3600)
@pytest.mark.xdist_group("gains-controlnet")
def test_a_controlnet_follows_its_layer_more_than_one_that_learnt_from_those_of_others(
    gains_run: RunDir, base_error: float
) -> None:
    steered, control = [], []
    for seed in SEEDS:
        for shuffle, found in ((False, steered), (True, control)):
            changed = replace(METHODS["controlnet"]["control"], shuffle=shuffle)
            name = "controlnet-shuffled" if shuffle else "controlnet"
            bundle = trained(gains_run, name, seed, {"control": changed})
            found.append(errors(bundle, tiles(gains_run, "val"), layer="edges").mean())
    what = "controlnet (edges): held-out error, base and steered"
    assert sure_gain(what, [base_error] * 3, steered) > 0
    assert (
        sure_gain("controlnet: with the layers of others, and with its own", control, steered) > 0
    )


@pytest.mark.timeout(3600)
@pytest.mark.xdist_group("gains-full")
def test_prior_preservation_keeps_what_the_base_knew(gains_run: RunDir) -> None:
    folder = Path(sample_shards(gains_run, ["train"])[0]).parent
    prior = PriorConfig(shards=str(folder), image_member="optic.png", prompt=OPTICAL)
    without, beside = [], []
    for seed in SEEDS:
        for changes, found in ((FULL, without), ({**FULL, "prior": prior}, beside)):
            name = "prior" if "prior" in changes else "full"
            bundle = trained(gains_run, name, seed, changes)
            optical = errors(bundle, tiles(gains_run, "val"), member="optic.png", caption=OPTICAL)
            found.append(optical.mean())
    what = "prior: error on held-out optical tiles, without and with it"
    assert sure_gain(what, without, beside) > 0
