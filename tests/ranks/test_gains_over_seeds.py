"""Each method of training beats what it starts from, over three seeds, by the metric it names.

On the embedded base, which knows optical views alone, and tiles of the procedural archive. The
metric is the error of the denoiser on held-out tiles under draws that are the same for all: what
the training minimises, on tiles it has not seen. `pytest -s -m long` on this file prints the table
of docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from training_ranks import Job, step_folder, tiny_config, train_ranks

from hpc.config import fingerprint, loads, to_yaml
from hpc.run.pipeline import run_stage
from hpc.run.rundir import RunDir, create_run
from sarhpc.diffusion.bundle import Bundle
from sarhpc.diffusion.conditioning import tokenize
from sarhpc.diffusion.config import (
    LAYERS,
    AdapterConfig,
    ControlConfig,
    ObjectiveConfig,
    TokenConfig,
)
from sarhpc.diffusion.dylora import truncate
from sarhpc.diffusion.objective import add_noise, draw, loss_per_sample
from sarhpc.shards.samples import ShardedSamples
from sarhpc.stages.config import RunConfig
from sarhpc.stages.places import model_folder
from sarhpc.stages.prompts import sample_shards
from sarhpc.stages.registry import stage_named
from sarhpc.training.checkpointing import read_weights
from sarhpc.training.config import PriorConfig, TrainConfig
from sarhpc.training.engine import Denoiser
from sarhpc.training.export import with_weights
from sarhpc.training.start import load_base

pytestmark = [pytest.mark.long, pytest.mark.slow]

BASE = Path(model_folder("embedded:base"))
SEEDS, STEPS, HELD_OUT, DRAWS = (0, 1, 2), 60, 64, 2
STUDENT = 4.303
"""97.5 % point of Student's distribution with two degrees of freedom: three seeds."""
OPTICAL = "An aerial view of the ground"
TOKEN = "A SAR image of"

ARCHIVE = """
simulate: {seed: 77, scenes: 12, scenes_per_line: 2, size_px: 512}
tile:
  tile_px: 128
  stride_px: 64
  shard_samples: 32
  require_optical: true
  conditions: [edges]
  split: {fractions: [0.7, 0.3, 0.0]}
caption: {captioner: truth, template: {token: "A SAR image of"}}
cluster: {workers: 1, ranks: 1}
"""

FULL = {"lr_unet": 3e-4, "lr_text_encoder": 1e-4}
LOW_RANK = {"lr_unet": 3e-3, "lr_text_encoder": 1e-3}
METHODS: Mapping[str, dict[str, Any]] = {
    "full": FULL,
    **{
        kind: {"adapter": AdapterConfig(kind=kind, rank=8), **LOW_RANK}
        for kind in ("lora", "locon", "loha", "lokr", "dylora")
    },
    "token": {"token": TokenConfig(lr=5e-3), "lr_unet": 0.0, "lr_text_encoder": 0.0},
    "controlnet": {"control": ControlConfig("edges", lr=3e-4)},
}


@dataclass(frozen=True)
class Tiles:
    """Tiles of some shards, their captions beginning as they are told."""

    shards: tuple[Path, ...]
    begins: str = TOKEN

    def __len__(self) -> int:
        return len(ShardedSamples(self.shards))

    def key(self, number: int) -> str:
        return ShardedSamples(self.shards).key(number)

    def load(self, number: int, image_member: str) -> tuple[Any, str]:
        image, caption = ShardedSamples(self.shards).load(number, image_member)
        return image, caption.replace(TOKEN, self.begins)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Captioned tiles of twelve scenes, a third of them held out."""
    config = loads(RunConfig, ARCHIVE, [f"train.base_model={BASE}"])
    root = tmp_path_factory.mktemp("gains") / "run"
    made = create_run(root, to_yaml(config), fingerprint(config))
    for name in ("simulate", "tile", "caption"):
        run_stage(made, stage_named(config, name))
    return made


def tiles(run: RunDir, split: str, begins: str = TOKEN) -> Tiles:
    return Tiles(tuple(sample_shards(run, [split])), begins)


def trained(run: RunDir, root: Path, seed: int, changes: Mapping[str, Any]) -> Bundle:
    """The base after `STEPS` steps of a method."""
    cfg: TrainConfig = tiny_config(
        **{
            "max_steps": STEPS, "epochs": 1000, "global_batch": 8, "micro_batch": 8,
            "warmup_steps": 10, "ema_decay": 0.0, "cache_latents": True, "seed": seed,
            "checkpoint_every_s": 1e9, "weight_decay": 0.0, **changes,
        }
    )  # fmt: skip
    begins = TOKEN if cfg.token is None else f"{cfg.token.text} image of"
    job = Job(BASE, root, cfg, samples=tiles(run, "train", begins))
    assert train_ranks(job, world=1) == [0]
    weights = read_weights(step_folder(job, STEPS), average=False)
    return with_weights(load_base(cfg, BASE), weights)


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
    model, found = Denoiser(**bundle.models).eval(), []
    for start in range(0, HELD_OUT, 16):
        numbers = range(start, start + 16)
        loaded = [held_out.load(number, member) for number in numbers]
        images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in loaded])
        ids = tokenize(bundle.tokenizer, [caption or text for _, text in loaded])
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


def sure_gain(what: str, before: Sequence[float], after: Sequence[float]) -> float:
    """By how much `after` is below `before` over the seeds: the lower end of the 95 % interval."""
    gains = np.subtract(before, after)
    half = STUDENT * gains.std(ddof=1) / len(gains) ** 0.5
    print(
        f"| {what} | {np.mean(before):.4f} | {np.mean(after):.4f} | "
        f"{gains.mean():.4f} ({gains.mean() - half:.4f} to {gains.mean() + half:.4f}) |",
        flush=True,
    )
    return float(gains.mean() - half)


@pytest.fixture(scope="module")
def base_error(run: RunDir) -> float:
    return float(errors(load_base(tiny_config(), BASE), tiles(run, "val")).mean())


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "method", [name for name in METHODS if name not in ("token", "controlnet")]
)
def test_a_method_learns_radar_tiles_that_it_has_not_seen(
    run: RunDir, base_error: float, tmp_path: Path, method: str
) -> None:
    found, cut = [], []
    for seed in SEEDS:
        changes = METHODS[method]
        bundle = trained(run, tmp_path / f"{seed}", seed, changes)
        found.append(errors(bundle, tiles(run, "val")).mean())
        if method == "dylora":
            truncate(bundle.models, changes["adapter"], 2)
            cut.append(errors(bundle, tiles(run, "val")).mean())
    before = [base_error] * 3
    assert sure_gain(f"{method}: held-out error, base and trained", before, found) > 0
    assert not cut or sure_gain(f"{method} cut from 8 to 2 directions", before, cut) > 0


@pytest.mark.timeout(3600)
def test_a_token_learns_what_its_word_did_not_say(run: RunDir, tmp_path: Path) -> None:
    held_out = tiles(run, "val", "<SAR> image of")
    untrained = load_base(tiny_config(**METHODS["token"]), BASE)
    before = float(errors(untrained, held_out).mean())
    after = [
        errors(trained(run, tmp_path / f"{seed}", seed, METHODS["token"]), held_out).mean()
        for seed in SEEDS
    ]
    what = "token alone: held-out error, its first embedding and learnt"
    assert sure_gain(what, [before] * 3, after) > 0


@pytest.mark.timeout(3600)
def test_a_controlnet_follows_its_layer_more_than_one_that_learnt_from_those_of_others(
    run: RunDir, base_error: float, tmp_path: Path
) -> None:
    steered, control = [], []
    for seed in SEEDS:
        for shuffle, found in ((False, steered), (True, control)):
            told = replace(METHODS["controlnet"]["control"], shuffle=shuffle)
            bundle = trained(run, tmp_path / f"{seed}{shuffle}", seed, {"control": told})
            found.append(errors(bundle, tiles(run, "val"), layer="edges").mean())
    what = "controlnet (edges): held-out error, base and steered"
    assert sure_gain(what, [base_error] * 3, steered) > 0
    assert (
        sure_gain("controlnet: with the layers of others, and with its own", control, steered) > 0
    )


@pytest.mark.timeout(3600)
def test_prior_preservation_keeps_what_the_base_knew(run: RunDir, tmp_path: Path) -> None:
    folder = Path(sample_shards(run, ["train"])[0]).parent
    prior = PriorConfig(shards=str(folder), image_member="optic.png", prompt=OPTICAL)
    without, beside = [], []
    for seed in SEEDS:
        for changes, found in ((FULL, without), ({**FULL, "prior": prior}, beside)):
            bundle = trained(run, tmp_path / f"{seed}{'prior' in changes}", seed, changes)
            optical = errors(bundle, tiles(run, "val"), member="optic.png", caption=OPTICAL)
            found.append(optical.mean())
    what = "prior: error on held-out optical tiles, without and with it"
    assert sure_gain(what, without, beside) > 0
