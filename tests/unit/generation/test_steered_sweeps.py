"""Sweeps of layouts that a ControlNet steers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from tiny_bundle import make_bundle

from sarhpc.corpus.splits import split_group
from sarhpc.generation.config import GenerateConfig, SteerConfig
from sarhpc.generation.image_shard import Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation
from sarhpc.generation.steering import SteeringLayers, with_layers
from sarhpc.generation.sweeps.config import SensorConfig, SweepConfig
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard

pytestmark = pytest.mark.slow

CONTRACT = {
    "schema": "sarhpc.contract/1", "calibration": "sigma0", "tiles": 1, "pixel_m": [0.35, 0.35],
    "normalisation": {"mode": "db", "low": [0.01, 0.01], "top": [9.0, 9.0]},
}  # fmt: skip
EACH, LAYOUTS, PX = 2, 5, 32


def config(**changes: Any) -> GenerateConfig:
    sweep = SweepConfig(sensor=SensorConfig(resolution_m=[0.5], looks=[1, 4]))
    return GenerateConfig(
        prompts=["a lake"], images=LAYOUTS, steps=2, batch=2, shard_samples=6, sweep=sweep,
        **changes,
    )  # fmt: skip


def made(pipeline: Any, cfg: GenerateConfig, **sources: Any) -> list[tuple[int, list[Sample]]]:
    """First layout and samples of each shard."""
    return [
        (
            inputs["first"],
            list(
                generate_shard(
                    number, {**inputs, "contract": CONTRACT}, cfg, pipeline, Provenance("", ""),
                    **sources,
                ).samples
            ),
        )
        for number, inputs in enumerate(plan_generation(cfg))
    ]  # fmt: skip


def test_one_layer_steers_all_images_of_a_layout_and_is_kept_with_each(tmp_path: Path) -> None:
    base = load_pipeline(make_bundle(tmp_path), GenerateConfig(), "cpu")
    parts = {name: getattr(base, name) for name in ("vae", "unet", "text_encoder", "tokenizer")}
    StableDiffusionControlNetPipeline(
        **parts,
        scheduler=base.scheduler,
        controlnet=ControlNetModel.from_unet(base.unet),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(tmp_path / "steered")
    rng = np.random.default_rng(0)
    tiles = [
        Sample(
            sample_key(0, number),
            {
                "edges.png": encode_gray8(rng.integers(0, 256, (PX, PX), np.uint8)),
                "meta.json": encode_json({}),
            },
        )
        for number in range(3)
    ]
    write_shard(tmp_path / "000000.tar", tiles)
    cfg = config(steer=SteerConfig())
    layers = SteeringLayers([tmp_path / "000000.tar"], SteerConfig())
    pipeline = load_pipeline(tmp_path / "steered", cfg, "cpu")
    samples = [
        sample
        for first, shard in made(pipeline, cfg, layers=layers)
        for sample in with_layers(shard, layers, first, ["edges.png"], EACH)
    ]
    assert len(samples) == LAYOUTS * EACH
    for number, sample in enumerate(samples):
        tile = tiles[number // EACH % 3]
        assert sample.members["edges.png"] == tile.members["edges.png"]
        assert sample.meta["steered_by"]["tile"] == tile.key
    # Layouts 0 and 3 have one layer.
    assert split_group(samples[0].meta) == split_group(samples[3 * EACH].meta)
    assert samples[0].meta["layout"] != samples[3 * EACH].meta["layout"]
