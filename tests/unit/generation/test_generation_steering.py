"""A ControlNet at generation: each image says which layer of which tile steered it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controlnet_models import save_with_controlnet

from hpc.errors import ConfigError, DataError
from sarhpc.generation.config import GenerateConfig, SteerConfig
from sarhpc.generation.image_shard import Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation
from sarhpc.generation.steering import SteeringLayers
from sarhpc.shards.images import encode_gray8, encode_rgb8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.schema import validate_sample
from sarhpc.shards.writer import write_shard

pytestmark = pytest.mark.slow


def config(**changes: Any) -> GenerateConfig:
    settings = {"images": 5, "steps": 2, "batch": 2, "shard_samples": 3, "steer": SteerConfig()}
    return GenerateConfig(**{"prompts": ["a river"], **settings, **changes})


@pytest.fixture(scope="module")
def steered(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with a ControlNet whose last convolutions are not zero, as after training."""
    return save_with_controlnet(model_folder, tmp_path_factory.mktemp("steered") / "model")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of three captioned tiles of 16 px with a sketch and a land cover each."""
    rng = np.random.default_rng(0)
    samples = []
    for index, caption in enumerate(("a lake", "a wood", "a town")):
        sketch = rng.integers(0, 256, (16, 16), np.uint8)
        cover = rng.integers(0, 256, (16, 16, 3), np.uint8)
        members = {
            "edges.png": encode_gray8(sketch),
            "segmentation.png": encode_rgb8(cover),
            "meta.json": encode_json({"caption": {"SHORT": caption}}),
        }
        samples.append(Sample(sample_key(7, index), members))
    path = tmp_path_factory.mktemp("tiles") / "000007.tar"
    write_shard(path, samples)
    return path


def generate(model: Path, tiles: Path, cfg: GenerateConfig, order: int = 1) -> list[Sample]:
    pipeline = load_pipeline(model, cfg, "cpu")
    assert cfg.steer is not None
    layers = SteeringLayers([tiles], cfg.steer)
    made = {
        number: list(
            generate_shard(
                number, inputs, cfg, pipeline, Provenance("m", "c"), layers=layers
            ).samples
        )
        for number, inputs in list(enumerate(plan_generation(cfg)))[::order]
    }
    return [sample for number in sorted(made) for sample in made[number]]


def test_every_image_records_its_conditioning_layer(steered: Path, tiles: Path) -> None:
    cfg = config()
    samples = generate(steered, tiles, cfg)
    layers = SteeringLayers([tiles], SteerConfig())
    for number, sample in enumerate(samples):
        validate_sample(sample)
        told = sample.meta["steered_by"]
        assert told["tile"] == sample_key(7, number % 3), "taken in turn, over all shards"
        assert told["layer"] == "edges"
        assert told["scale"] == 1.0
        assert told["sha256"] == layers.load(number).sha256
    assert len(samples) == 5
    assert [s.members["sar.png"] for s in generate(steered, tiles, cfg, order=-1)] == [
        s.members["sar.png"] for s in samples
    ], "the order of shards changes nothing"


def test_the_digest_is_that_of_the_member(tiles: Path) -> None:
    from sarhpc.shards.reader import read_shard

    [first, *_] = read_shard(tiles)
    told = SteeringLayers([tiles], SteerConfig(layer="segmentation")).load(0)
    assert told.sha256 == hashlib.sha256(first.members["segmentation.png"]).hexdigest()
    assert told.layer.shape == (16, 16, 3)
    assert 0 <= told.layer.min() < told.layer.max() <= 1
    assert np.ptp(told.layer, axis=2).max() > 0, "colours stay colours"


def test_scale_zero_is_the_unsteered_model_and_scale_one_is_not(
    steered: Path, tiles: Path, model_folder: Path
) -> None:
    plain_cfg = config(steer=None)
    pipeline = load_pipeline(model_folder, plain_cfg, "cpu")
    plain = [
        sample.members["sar.png"]
        for number, inputs in enumerate(plan_generation(plain_cfg))
        for sample in generate_shard(
            number, inputs, plain_cfg, pipeline, Provenance("m", "c")
        ).samples
    ]
    off = generate(steered, tiles, config(steer=SteerConfig(scale=0.0)))
    on = generate(steered, tiles, config())
    assert [sample.members["sar.png"] for sample in off] == plain
    assert all(s.members["sar.png"] != other for s, other in zip(on, plain, strict=True))


def test_a_model_and_a_configuration_that_disagree_are_refused(
    steered: Path, model_folder: Path
) -> None:
    with pytest.raises(ConfigError, match="has a ControlNet"):
        load_pipeline(steered, config(steer=None), "cpu")
    with pytest.raises(ConfigError, match="no ControlNet"):
        load_pipeline(model_folder, config(), "cpu")
    with pytest.raises(ConfigError, match=r"steer\.layer is 'sketch'"):
        plan_generation(config(steer=SteerConfig(layer="sketch")))


def test_captions_of_the_tiles_are_available_and_missing_layers_are_reported(tiles: Path) -> None:
    layers = SteeringLayers([tiles], SteerConfig(layer="coarse"))
    assert [layers.caption(number) for number in range(len(layers))] == [
        "a lake",
        "a wood",
        "a town",
    ]
    with pytest.raises(DataError, match=r"coarse\.png"):
        layers.load(0)
