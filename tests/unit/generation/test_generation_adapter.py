"""A low-rank adapter at generation: off is the base to the byte, on is what was trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hpc.errors import ConfigError, DataError
from sarhpc.diffusion.adapter import (
    TEXT,
    add_adapter,
    low_rank_weights,
    save_low_rank,
    unet_targets,
)
from sarhpc.diffusion.config import LORA_FILE, AdapterConfig
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.image_shard import Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation, shard_requests
from sarhpc.generation.sampler import sample_images

pytestmark = pytest.mark.slow


def config(**changes: Any) -> GenerateConfig:
    settings = {"prompts": ["a river"], "images": 2, "steps": 3, "batch": 2}
    return GenerateConfig(**{**settings, **changes})


def images(pipeline: Any, cfg: GenerateConfig) -> NDArray[np.float32]:
    [inputs] = plan_generation(cfg)
    return sample_images(pipeline, shard_requests(inputs), cfg, 2, 1)


def put_adapter_on(pipeline: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Adapters with weights as a training would leave them, on both models of `pipeline`."""
    generator = torch.Generator().manual_seed(0)
    adapter = AdapterConfig(rank=2, alpha=4.0)
    for part, targets in (("unet", unet_targets(adapter)), ("text_encoder", list(TEXT))):
        model = getattr(pipeline, part)
        add_adapter(model, adapter, targets, seed=0)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return {part: low_rank_weights(getattr(pipeline, part)) for part in ("unet", "text_encoder")}


@pytest.fixture(scope="module")
def tuned(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model folder with an adapter in it, and the images of the adapter as it was trained."""
    folder = tmp_path_factory.mktemp("tuned") / "model"
    shutil.copytree(model_folder, folder)
    pipeline = load_pipeline(model_folder, config(), "cpu")
    save_low_rank(put_adapter_on(pipeline), folder)
    return folder, images(pipeline, config())


def test_weight_zero_is_the_base_byte_by_byte_and_weight_one_the_trained_model(
    model_folder: Path, tuned: tuple[Path, Any]
) -> None:
    folder, wanted = tuned
    base = images(load_pipeline(model_folder, config(), "cpu"), config())
    off, on, half = (
        images(load_pipeline(folder, config(adapter_weight=weight), "cpu"), config())
        for weight in (0.0, 1.0, 0.5)
    )

    assert np.array_equal(off, base)
    assert np.abs(wanted - base).max() > 0.05
    assert np.allclose(on, wanted, atol=2e-3)
    assert np.abs(half - base).max() > 0.01
    assert np.abs(half - on).max() > 0.01


def test_an_adapter_of_another_folder_is_applied_and_recorded(
    model_folder: Path, tuned: tuple[Path, Any]
) -> None:
    folder, wanted = tuned
    for named in (folder, folder / LORA_FILE):
        cfg = config(adapter=str(named))
        pipeline = load_pipeline(model_folder, cfg, "cpu")
        assert np.allclose(images(pipeline, cfg), wanted, atol=2e-3)

    half = config(adapter=str(folder), adapter_weight=0.5)
    [inputs] = plan_generation(half)
    shard = generate_shard(
        0, {**inputs, "adapter_sha": "a" * 64}, half, pipeline, Provenance("m", "c")
    )
    meta = next(iter(shard.samples)).meta
    assert (meta["adapter_sha"], meta["adapter_weight"]) == ("a" * 64, 0.5)


def test_a_weight_without_an_adapter_and_an_adapter_that_is_not_there_are_refused(
    model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="has no adapter"):
        load_pipeline(model_folder, config(adapter_weight=0.5), "cpu")
    with pytest.raises(DataError, match="no adapter at"):
        load_pipeline(model_folder, config(adapter=str(tmp_path)), "cpu")


def test_a_torn_adapter_is_named(
    model_folder: Path, tuned: tuple[Path, Any], tmp_path: Path
) -> None:
    torn = tmp_path / LORA_FILE
    torn.write_bytes((tuned[0] / LORA_FILE).read_bytes()[:-100])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        load_pipeline(model_folder, config(adapter=str(torn)), "cpu")
